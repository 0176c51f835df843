"""What an exported directory says to others: by transformers and PEFT alone, in the way that its card shows.

Nothing of lhcq's own computes here, so a base that was loaded otherwise, a kernel, another tokenization or an adapter
that PEFT understands otherwise shows before the export is given away.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lhcq.errors import BadInput
from lhcq.model.base import compute_dtype
from lhcq.model.export import Said
from lhcq.model.loading import load_checked, load_quantized
from lhcq.model.tokens import Encoder, encode_prompts
from lhcq.records.labels import LABELS

_EXACT = 1e-3
"""How far two logits' difference may be apart in float32, where nothing is rounded but sums."""
_ROUNDED = 0.25
"""In bfloat16, and where a sum of weights was rounded."""


def check_adapter(adapter: Path, model_dir: Path, said: Said, again: Callable[[], Sequence[float]]) -> None:
    """Raise `BadInput` unless PEFT gives the run's own scores with `adapter` on the model in `model_dir` in NF4.

    `again` scores the prompts by lhcq on this machine: what was scored on another may have been rounded otherwise.
    """
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    dtype = compute_dtype(device)
    model = _with_adapter(load_quantized(model_dir, device, dtype), adapter)
    found = _margins(model, model_dir, said.prompts)
    del model
    exact = dtype == torch.float32
    if said.p_signal is None:
        _refuse_others(found, again(), adapter, _EXACT if exact else _ROUNDED)
        return
    _refuse_others(found, said.p_signal, adapter, _ROUNDED)
    if exact and _apart(found, said.p_signal) > _EXACT:
        _refuse_others(found, again(), adapter, _EXACT)


def check_merged(directory: Path, said: Said, again: Callable[[], Sequence[float]]) -> None:
    """As `check_adapter`, for a whole model that transformers loads: its weights were rounded once more."""
    from transformers import AutoModelForCausalLM

    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    model = load_checked(
        AutoModelForCausalLM, directory, dtype=compute_dtype(device), device_map={"": device}
    )
    found = _margins(model.eval(), directory, said.prompts)
    del model
    _refuse_others(found, again() if said.p_signal is None else said.p_signal, directory, _ROUNDED)


def _with_adapter(model: Any, adapter: Path) -> Any:
    from bitsandbytes.nn import Linear4bit
    from peft import PeftModel

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            # A CPU that has the instructions would compute in bfloat16, whatever was asked for.
            layer.support_avx512bf16_for_cpu = False
    with warnings.catch_warnings():
        # peft asks transformers by a name that transformers 5 calls deprecated.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return PeftModel.from_pretrained(model, adapter).eval()


@torch.inference_mode()
def _margins(model: Any, tokenizer_dir: Path, prompts: list[str]) -> list[float]:
    """log P(signal) - log P(background) after each prompt, by the card's program."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir, local_files_only=True, trust_remote_code=False)
    encode = encode_prompts(tokenizer_dir)
    asked = [
        [
            _ids_by_transformers(tokenizer, encode, text, tokenizer_dir)
            for text in (prompt, *(f"{prompt} {label}" for label in LABELS))
        ]
        for prompt in prompts
    ]
    margins = [0.0] * len(prompts)
    # Prompts of one length together, which need no padding.
    for length in {len(stem) for stem, *_ in asked}:
        rows = [row for row, (stem, *_) in enumerate(asked) if len(stem) == length]
        answers = [asked[row][1:] for row in rows]
        if all(len(ids) == length + 1 for answer in answers for ids in answer):
            told = _log_probabilities(model, [asked[row][0] for row in rows])[:, -1]
            for row, answer, one in zip(rows, answers, told, strict=True):
                background, signal = (float(one[ids[-1]]) for ids in answer)
                margins[row] = signal - background
        else:
            for row, answer in zip(rows, answers, strict=True):
                background, signal = (_log_likelihood(model, ids, length) for ids in answer)
                margins[row] = signal - background
    return margins


def _ids_by_transformers(tokenizer: Any, encode: Encoder, text: str, directory: Path) -> list[int]:
    """What the tokenizer gives by the card's program; raises `BadInput` where the run was fed something else."""
    (fed,) = encode([text])
    bare = list(tokenizer(text, add_special_tokens=False).input_ids)
    if fed[len(fed) - len(bare) :] != bare:
        raise BadInput(
            f"{directory}: transformers' tokenizer gives other tokens for {text[-30:]!r} than its tokenizer.json, "
            "which the run was fed by. Save the model with its fast tokenizer, and train again."
        )
    return fed


def _log_probabilities(model: Any, token_ids: list[list[int]]) -> torch.Tensor:
    """Of the whole vocabulary at each position, `(n, length, vocabulary)`."""
    logits = model(input_ids=torch.tensor(token_ids, device=model.device), use_cache=False).logits
    return torch.log_softmax(logits.double(), -1)


def _log_likelihood(model: Any, ids: list[int], n: int) -> float:
    told = _log_probabilities(model, [ids])[0, n - 1 : -1]
    return float(told.gather(1, torch.tensor(ids[n:], device=told.device)[:, None]).sum())


def _refuse_others(found: Sequence[float], expected: Sequence[float], directory: Path, limit: float) -> None:
    apart = _apart(found, expected)
    if not apart <= limit:
        raise BadInput(
            f"{directory.name}: others would not get this run's scores from it: an event's logit of P(signal) is "
            f"{apart:.2g} off (rounding is below {limit:g}). Nothing was exported. If the base model or the split "
            "was changed since the training, put it back; else this kind of model cannot be exported."
        )


def _apart(found: Sequence[float], p_signal: Sequence[float]) -> float:
    """The largest difference of two logits of P(signal), of the larger of 1 and that logit."""
    return max(
        (
            abs(margin - one) / max(1.0, abs(one)) if math.isfinite(margin) else math.inf
            for margin, one in zip(found, map(_logit, p_signal), strict=True)
        ),
        default=0.0,
    )


def _logit(p: float) -> float:
    tiny = 1e-15
    return math.log(max(p, tiny)) - math.log(max(1.0 - p, tiny))
