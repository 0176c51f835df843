"""Models of known shapes with random weights, real tokenizers, and prompts of the templates' lengths."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch

MISTRAL_7B = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 32768,
    "max_position_embeddings": 32768,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "bfloat16",
}
SMOLLM2_135M = MISTRAL_7B | {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49152,
    "rope_theta": 1e5,
    "tie_word_embeddings": True,
}
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MISTRAL_TOKENIZER = "mistral_instruct_tokenizer_240323.model.v3"


def write_random_model(shape: dict[str, object], directory: Path, *, tokenizer: Path | None) -> str:
    """Write a model of this shape, weights normal with sigma 0.02; says which tokenizer it has.

    `tokenizer` is a directory with a tokenizer.json; None takes Mistral v3's out of the mistral-common wheel.
    """
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(shape))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=torch.bfloat16)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(1)
    shards: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in model.named_parameters():
        weight = torch.empty(tensor.shape, dtype=torch.bfloat16, device=device)
        weight = weight.normal_(0.0, 0.02, generator=generator) if tensor.dim() > 1 else weight.fill_(1.0)
        part = name.partition(".layers.")[2].partition(".")[0] or "rest"
        shards.setdefault(f"model-{part}.safetensors", {})[name] = weight.cpu()
    index = {name: file for file, weights in shards.items() for name in weights}
    for file, weights in shards.items():
        save_file(weights, directory / file, metadata={"format": "pt"})
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    os.sync()  # else a checkpoint that is measured waits until all of this is on the disk
    if tokenizer is not None:
        for path in tokenizer.glob("tokenizer*.json"):
            shutil.copy(path, directory)
        return f"tokenizer of {tokenizer.name}"
    write_mistral_tokenizer(directory)
    return "Mistral v3 tokenizer of mistral-common"


def write_mistral_tokenizer(directory: Path) -> None:
    """Write Mistral v3's sentencepiece model as a fast tokenizer: byte-pair merges in the order of their scores."""
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer, models, pre_tokenizers

    spec = importlib.util.find_spec("mistral_common")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("no Mistral tokenizer: pip install --no-deps mistral-common sentencepiece")
    pieces = SentencePieceProcessor()
    pieces.Load(str(Path(spec.submodule_search_locations[0]) / "data" / MISTRAL_TOKENIZER))
    vocabulary = {pieces.id_to_piece(index): index for index in range(pieces.GetPieceSize())}
    merges = [
        (pieces.get_score(index), piece[:cut], piece[cut:])
        for piece, index in vocabulary.items()
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    merges.sort(key=lambda merge: -merge[0])
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [merge[1:] for merge in merges], unk_token="<unk>", byte_fallback=True)  # noqa: S106
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_special_tokens(["<s>", "</s>", "[INST]", "[/INST]"])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "add_bos_token": True}))


def diary_prompts(n: int) -> list[str]:
    """What `lhcq.prompts.templates.render_diary` writes of two jets, with random momenta of TeV jets."""
    rng = np.random.default_rng(1)
    return [
        "\n".join(
            [
                "[INST] Classify this event as 'signal' or 'background'.",
                "jets:",
                *(
                    "  jet{}: px={:.10f} py={:.10f} pz={:.10f} E={:.10f}".format(rank, *momentum)
                    for rank, momentum in enumerate(
                        rng.uniform(1000, 4000, (2, 4)) * rng.choice([-1, 1], (2, 4)), start=1
                    )
                ),
                f"num_particles: {rng.integers(50, 400)}[/INST]",
            ]
        )
        for _ in range(n)
    ]


def compact_prompts(n: int) -> list[str]:
    """What the compact template writes of the full features: m_jj, two masses, particles, two D2."""
    rng = np.random.default_rng(2)
    high = np.array([700, 700, 300, 40, 60, 60])
    return [" ".join(map(str, rng.integers(high // 8, high))) + ":" for _ in range(n)]
