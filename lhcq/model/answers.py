"""What a model says after a prompt, in words: greedy, token by token, until the end of the sequence.

Scoring has read the model at the prompts' ends already, so the first token costs nothing, and an answer that cannot
become a label any more needs no second. On a CPU the rest goes on from the keys and values that scoring has left,
where the model can, which is tried before it is trusted; else the whole prompt is read again, with what was said.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lhcq.model.agreement import alike
from lhcq.model.loss import pad_right, read_at, vocabulary_logits
from lhcq.records.labels import LABELS

if TYPE_CHECKING:
    from lhcq.model.base import Base

_MOST_TOKENS = 16
"""Enough for a label that is spelt letter by letter; an answer that is longer is none."""


def read_and_keep(base: "Base", token_ids: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """The output at the last positions `last` `(n,)` of rows of tokens, `(n, hidden)`, and what `go_on` needs."""
    outputs, kept = _outputs_and_kept(base, input_ids=token_ids)
    return outputs[torch.arange(len(last), device=base.device), last], kept


def go_on(base: "Base", kept: Any, last: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The output at one more token `(n,)` behind each prompt, `(n, hidden)`; `kept` and `last` as of `read_and_keep`.

    It can be gone on from once.
    """
    places = torch.arange(kept.get_seq_length() + 1, device=base.device)
    # What stands behind a prompt's end is padding; the new token comes last.
    seen = (places <= last[:, None]) | (places == places[-1])
    outputs, _ = _outputs_and_kept(
        base,
        input_ids=tokens[:, None],
        attention_mask=seen.long(),
        position_ids=last[:, None] + 1,
        past_key_values=kept,
    )
    return outputs[:, 0]


def _outputs_and_kept(base: "Base", **arguments: Any) -> tuple[torch.Tensor, Any]:
    model = base.model if base.own_logits else base.backbone
    said = model(**arguments, use_cache=True)
    return said.logits if base.own_logits else said.last_hidden_state, said.past_key_values


def remembers(base: "Base") -> bool:
    """Whether `go_on` gives what the model says of the prompt with the token behind it; tried once a model.

    In float32 alone, where it can be seen: a wrong mask changes little of what bfloat16 rounds.
    """
    if base.remembers is None:
        plain = base.compute_dtype == torch.float32 and base.device.type == "cpu"
        base.remembers = plain and _goes_on(base)
    return base.remembers


@torch.no_grad()
def _goes_on(base: "Base") -> bool:
    token_ids, last = pad_right(base.probes, base)
    tokens = torch.tensor(base.label_ids, device=base.device)
    try:
        ends, kept = read_and_keep(base, token_ids, last)
        if not _keeps_all(kept, token_ids.shape[1]):
            return False
        after = go_on(base, kept, last, tokens)
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError, NotImplementedError):
        return False  # it keeps something else, or nothing
    whole = _read_ends(base, base.probes)
    behind = _read_ends(base, [[*ids, int(token)] for ids, token in zip(base.probes, tokens, strict=True)])
    return all(
        alike(base, vocabulary_logits(base, one), vocabulary_logits(base, other))
        for one, other in ((ends, whole), (after, behind))
    )


def _keeps_all(kept: Any, length: int) -> bool:
    """Whether every layer keeps keys and values of all tokens, and nothing else, such as a state that saw padding."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    return type(kept) is DynamicCache and all(
        type(layer) is DynamicLayer and layer.get_seq_length() == length for layer in kept.layers
    )


def say_answers(
    base: "Base", prompts: Sequence[list[int]], ends: torch.Tensor, last: torch.Tensor, kept: Any = None
) -> NDArray[np.int8]:
    """What is answered to each prompt's token ids, `(n,)`: 1 signal, 0 background, -1 neither.

    An answer is what comes before the end of the sequence; it is a label where it is that word and nothing else but
    white space around it. `ends` are the outputs at the prompts' `last` positions, `kept` what goes with them.
    """
    found = np.full(len(prompts), -1, np.int8)
    decode = functools.cache(lambda tokens: base.decode(list(tokens)).strip())
    said: list[tuple[int, ...]] = [()] * len(prompts)
    rows = list(range(len(prompts)))
    greedy = _likeliest(base, ends)
    for _ in range(_MOST_TOKENS):
        going_on = []
        for row, token in zip(rows, greedy, strict=True):
            if token in base.end_ids:
                found[row] = _code(decode(said[row]))
                continue
            said[row] = (*said[row], token)
            if any(label.startswith(decode(said[row])) for label in LABELS):
                going_on.append(row)
        rows = going_on
        if not rows:
            break
        if kept is not None:
            # Of the rows whose answer has ended, or is no label, nobody looks at what comes next.
            tokens = torch.tensor([(said[row] or (base.pad_id,))[-1] for row in range(len(prompts))])
            outputs = go_on(base, kept, last, tokens.to(base.device))[rows]
            kept = None
        else:
            outputs = _read_ends(base, [[*prompts[row], *said[row]] for row in rows])
        greedy = _likeliest(base, outputs)
    return found


def _read_ends(base: "Base", token_ids: Sequence[list[int]]) -> torch.Tensor:
    padded, last = pad_right(token_ids, base)
    return read_at(base, padded, last[:, None])[:, 0]


def _likeliest(base: "Base", outputs: torch.Tensor) -> Iterable[int]:
    tokens: list[int] = vocabulary_logits(base, outputs).argmax(dim=-1).tolist()
    return tokens


def _code(text: str) -> int:
    return LABELS.index(text) if text in LABELS else -1
