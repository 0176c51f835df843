"""What an exported directory says to others: by the program of its card, which needs transformers and PEFT alone.

Nothing of lhcq's own computes here but what packs a base into NF4 on a CPU, which is held to bitsandbytes' bits in
this process (`lhcq.model.kernels.nf4`). So a base that was loaded otherwise, a kernel, another tokenization or an
adapter that PEFT understands otherwise shows before the export is given away, and so does a card whose program is
wrong.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from lhcq.errors import BadInput
from lhcq.model.export import Said, Tried
from lhcq.model.kernels.nf4 import pack_quickly_if_large
from lhcq.model.library_output import quiet_transformers
from lhcq.model.tokens import encode_prompts
from lhcq.records.labels import LABELS

_EXACT = 1e-3
"""How far two logits' difference may be apart in float32, where nothing is rounded but sums."""
_ROUNDED = 0.25
"""In bfloat16."""


def try_program(
    program: str,
    directory: Path,
    model_dir: Path,
    said: Said,
    again: Callable[[], Sequence[float]],
    *,
    exact: bool,
) -> Tried:
    """What the card's `program` gives for the events; raises `BadInput` unless those are the run's own scores.

    The program uses the export in `directory`, of a run on the model in `model_dir`, computing in float32 where it is
    `exact`. `again` scores the prompts by lhcq on this machine: what was scored on another may have been rounded
    otherwise.
    """
    with quiet_transformers(), warnings.catch_warnings():
        # peft asks transformers by a name that transformers 5 calls deprecated.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        if not torch.cuda.is_available():
            pack_quickly_if_large(model_dir)
        made = _run(program, directory)
        _compare_tokens(made["tokens"], said.prompts, model_dir)
        with _explained(directory):
            found = [_logit(one) for one in made["p_signal"](said.prompts)]
            # Words cost a pass each: the least and the most signal-like are asked for words.
            answers = [
                made["answer"](prompt) for prompt in dict.fromkeys((said.prompts[0], said.prompts[-1]))
            ]
    del made  # which holds a model, and `again` may load another
    if said.p_signal is None:
        apart = _refuse_others(found, again(), directory, _EXACT if exact else _ROUNDED)
    else:
        apart = _refuse_others(found, said.p_signal, directory, _ROUNDED)
        if exact and apart > _EXACT:
            apart = _refuse_others(found, again(), directory, _EXACT)
    return Tried(len(found), apart, len(answers), sum(answer in LABELS for answer in answers))


def _run(program: str, directory: Path) -> dict[str, Any]:
    """What the program defines; under a name of its own it shows no example."""
    made: dict[str, Any] = {"__name__": "card"}
    with _explained(directory):
        exec(compile(program, f"<card of {directory.name}>", "exec"), made)  # noqa: S102  (lhcq wrote it just now)
    return made


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turn what libraries say of a model that they cannot use so into `BadInput`."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        if "out of memory" in str(error) or "CUDA" in str(error):
            raise  # of the machine, not of the model
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"{directory.name}: others could not use it by transformers alone ({said}). Nothing was exported."
        ) from error


def _compare_tokens(tokens: Callable[[str], list[int]], prompts: Sequence[str], model_dir: Path) -> None:
    """Raise `BadInput` where the run was fed something else than the program feeds."""
    texts = [text for prompt in prompts for text in (prompt, *(f"{prompt} {label}" for label in LABELS))]
    for text, fed in zip(texts, encode_prompts(model_dir)(texts), strict=True):
        if list(tokens(text)) != fed:
            raise BadInput(
                f"{model_dir}: transformers' tokenizer gives other tokens for {text[-30:]!r} than its "
                "tokenizer.json, which the run was fed by. Save the model with its fast tokenizer, and train again."
            )


def _refuse_others(found: Sequence[float], p_signal: Sequence[float], directory: Path, limit: float) -> float:
    """The largest difference of two logits of P(signal), of the larger of 1 and that logit; refused if too large."""
    apart = max(
        (
            abs(margin - one) / max(1.0, abs(one)) if math.isfinite(margin) else math.inf
            for margin, one in zip(found, map(_logit, p_signal), strict=True)
        ),
        default=0.0,
    )
    if not apart <= limit:
        raise BadInput(
            f"{directory.name}: others would not get this run's scores from it: an event's logit of P(signal) is "
            f"{apart:.2g} off (rounding is below {limit:g}). Nothing was exported. If the base model or the split "
            "was changed since the training, put it back; else this kind of model cannot be exported."
        )
    return apart


def _logit(p: float) -> float:
    tiny = 1e-15
    return math.log(max(p, tiny)) - math.log(max(1.0 - p, tiny))
