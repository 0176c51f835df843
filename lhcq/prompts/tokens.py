"""How long prompts are for a tokenizer. A prompt that is too long is refused, never truncated."""

from collections.abc import Callable, Sequence

import numpy as np

from lhcq.errors import BadInput
from lhcq.frozen import Frozen
from lhcq.records.letters import LETTERS, SEPARATOR

_BATCH = 4096


class TokenAudit(Frozen):
    """Lengths in tokens over `n` prompts; `p99` is a length that at most one prompt in a hundred exceeds."""

    mean: float
    p99: int
    max: int
    n: int


def audit(
    prompts: Sequence[str],
    encode: Callable[[list[str]], list[list[int]]],
    *,
    max_tokens: int,
    rows: Sequence[int] | None = None,
) -> TokenAudit:
    """Measure every prompt with `encode`, or raise `BadInput` naming the first one above `max_tokens`.

    `rows` are the source rows to name prompts by; without them, a prompt's position is named.
    """
    lengths = np.zeros(len(prompts), np.int64)
    for start in range(0, len(prompts), _BATCH):
        batch = list(prompts[start : start + _BATCH])
        lengths[start : start + len(batch)] = [len(tokens) for tokens in encode(batch)]
    if not len(lengths):
        raise BadInput("there is no prompt to measure.")
    too_long = np.flatnonzero(lengths > max_tokens)
    if len(too_long):
        first = int(too_long[0])
        raise BadInput(
            f"row {rows[first] if rows is not None else first}: its prompt has {lengths[first]} tokens, "
            f"{max_tokens} are allowed, and {len(too_long)} of {len(lengths)} prompts are too long. Use a shorter "
            "template, fewer jets, or raise max_tokens."
        )
    return TokenAudit(
        mean=float(lengths.mean()),
        p99=int(np.percentile(lengths, 99, method="higher")),
        max=int(lengths.max()),
        n=len(lengths),
    )


def tokens_of_letter(encode: Callable[[list[str]], list[list[int]]]) -> int:
    """The most tokens that a letter of a constituent takes, wherever it stands: 1 for what was made for them."""
    around = [
        f"1{SEPARATOR}{{}} A{SEPARATOR}:",
        f"1{SEPARATOR} A{{}}{SEPARATOR}:",
        f"1{SEPARATOR}{SEPARATOR} A{{}}:",
    ]
    without, *by_letter = (
        encode([one.format(text) for one in around]) for text in ("", *(f" {letter}" for letter in LETTERS))
    )
    return max(
        len(longer) - len(shorter)
        for found in by_letter
        for longer, shorter in zip(found, without, strict=True)
    )
