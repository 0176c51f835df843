"""Small random models of many architectures of transformers, each in a directory with a tokenizer for digits."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["<pad>", "<s>", "</s>", "<unk>", *"0123456789", ":", ".", "-", "=", "signal", "background"]
_VOCABULARY = 80
_ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_PLAIN = {
    "vocab_size": _VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    **_ENDS,
}
_EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}
_GPT = {"vocab_size": _VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, **_ENDS}
_GPT |= {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1}
_DEEPSEEK = {
    **_PLAIN,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
    "n_shared_experts": 1,
}
_LINEAR_ATTENTION = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}
_GEMMA = {**_PLAIN, "head_dim": 16, "query_pre_attn_scalar": 16}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": _PLAIN,
    "llama tied": {**_PLAIN, "tie_word_embeddings": True},
    "mistral": _PLAIN,
    "qwen2": _PLAIN,
    "qwen2_moe": {**_PLAIN, **_EXPERTS, "shared_expert_intermediate_size": 32},
    "qwen3": {**_PLAIN, "head_dim": 16},
    "qwen3_moe": {**_PLAIN, **_EXPERTS, "head_dim": 16},
    "qwen3_next": {
        **_PLAIN,
        **_EXPERTS,
        "head_dim": 16,
        "shared_expert_intermediate_size": 32,
        **_LINEAR_ATTENTION,
    },
    "mixtral": {**_PLAIN, **_EXPERTS},
    "gpt_oss": {**_PLAIN, **_EXPERTS, "head_dim": 16},
    "olmoe": {**_PLAIN, **_EXPERTS},
    "phimoe": {**_PLAIN, **_EXPERTS, "router_jitter_noise": 0.0},
    "jetmoe": {**_PLAIN, **_EXPERTS, "kv_channels": 16},
    "granitemoe": {**_PLAIN, **_EXPERTS, "logits_scaling": 3.0},
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "minimax": {**_PLAIN, **_EXPERTS, "head_dim": 16, "block_size": 16},
    "gemma": {**_PLAIN, "head_dim": 16},
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "vaultgemma": _GEMMA,
    "phi": {**_PLAIN, "resid_pdrop": 0.0},
    "phi3": _PLAIN,
    "falcon": {**_PLAIN, "ffn_hidden_size": 96},
    "falcon_h1": {**_PLAIN, "head_dim": 16, "mamba_d_ssm": 128, **_MAMBA, "lm_head_multiplier": 0.25},
    "recurrent_gemma": {
        **_PLAIN,
        "num_hidden_layers": 3,
        "lru_width": 64,
        "attention_window_size": 16,
        "head_dim": 16,
    },
    "xlstm": {
        "vocab_size": _VOCABULARY,
        "hidden_size": 64,
        "embedding_dim": 64,
        "num_heads": 4,
        "num_blocks": 2,
        "num_hidden_layers": 2,
        "tie_word_embeddings": False,
        **_ENDS,
    },
    "mamba": {
        "vocab_size": _VOCABULARY,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "state_size": 8,
        **_ENDS,
    },
    "mamba2": {
        "vocab_size": _VOCABULARY,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "state_size": 16,
        "num_heads": 8,
        "head_dim": 16,
        "n_groups": 1,
        "chunk_size": 16,
        **_ENDS,
    },
    "rwkv": {
        "vocab_size": _VOCABULARY,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "attention_hidden_size": 64,
        "context_length": 128,
        **_ENDS,
    },
    "bamba": {**_PLAIN, "attn_layer_indices": [1], **_MAMBA},
    "granitemoehybrid": {
        **_PLAIN,
        **_EXPERTS,
        "shared_intermediate_size": 64,
        "layer_types": ["mamba", "attention"],
        **_MAMBA,
        "logits_scaling": 2.0,
    },
    "jamba": {
        **_PLAIN,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 8,
    },
    "zamba2": {
        **_PLAIN,
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "hybrid", "mamba"],
        "mamba_d_state": 16,
        "n_mamba_heads": 8,
        "mamba_ngroups": 1,
        "num_key_value_heads": 4,
        "adapter_rank": 8,
        "chunk_size": 16,
    },
    "lfm2": {**_PLAIN, "full_attn_idxs": [1]},
    "gpt2": _GPT,
    "gpt_neox": _PLAIN,
    "gptj": {**_GPT, "rotary_dim": 8},
    "gpt_bigcode": _GPT,
    "opt": {**_PLAIN, "ffn_dim": 96, "word_embed_proj_dim": 32, "dropout": 0.0},
    "bloom": {"vocab_size": _VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4, **_ENDS},
    "mpt": {
        "vocab_size": _VOCABULARY,
        "d_model": 64,
        "n_layers": 2,
        "n_heads": 4,
        "max_seq_len": 128,
        **_ENDS,
    },
    "stablelm": _PLAIN,
    "olmo": _PLAIN,
    "olmo2": _PLAIN,
    "cohere": _PLAIN,
    "cohere2": _PLAIN,
    "granite": {**_PLAIN, "logits_scaling": 4.0},
    "smollm3": _PLAIN,
    "nanochat": _PLAIN,
    "nemotron": _PLAIN,
    "starcoder2": {**_PLAIN, "embedding_dropout": 0.0, "residual_dropout": 0.0},
    "bert": {**_PLAIN, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}


def build_model(architecture: str, seed: int = 1, shape: dict[str, Any] | None = None) -> Any:
    """The model, in another `shape` if told, its matrices large enough for answers that differ."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from lhcq.model.library_output import quiet_transformers

    torch.manual_seed(seed)
    with quiet_transformers():
        fields = ARCHITECTURES[architecture] | (shape or {})
        config = AutoConfig.for_model(architecture.removesuffix(" tied"), **fields)
        model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.15)
    return model


def write_tokenizer(directory: Path, *, before: str = "", behind: str = "") -> None:
    """A tokenizer of one token a digit that frames each text."""
    tokenizer = Tokenizer(
        models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<unk>")  # noqa: S106
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.add_special_tokens(WORDS[:3])
    if before or behind:
        frame = " ".join(filter(None, (before, "$A", behind)))
        special = [(word, WORDS.index(word)) for word in {*before.split(), *behind.split()}]
        tokenizer.post_processor = processors.TemplateProcessing(single=frame, special_tokens=special)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        **({"bos_token": "<s>"} if "<s>" in before else {}),
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def write_model(
    directory: Path,
    architecture: str = "llama",
    *,
    seed: int = 1,
    dtype: Any = None,
    shape: dict[str, Any] | None = None,
    **frame: str,
) -> Path:
    """The model saved whole, and the tokenizer beside it."""
    from lhcq.model.library_output import quiet_transformers

    with quiet_transformers():
        build_model(architecture, seed, shape).to(dtype).save_pretrained(directory)
    write_tokenizer(directory, **frame)
    return directory
