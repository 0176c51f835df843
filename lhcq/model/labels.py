"""The two answers, and the single token that each one is."""

from lhcq.errors import BadInput
from lhcq.model.tokens import Encoder

LABELS = ("background", "signal")
"""The index is the label bit of the LHC Olympics files."""


def label_ids(encode: Encoder, prompt: str) -> tuple[int, int]:
    """The token ids of " background" and " signal" as they follow `prompt`.

    Raises `BadInput` when a label is not exactly one token there: the score compares two single tokens.
    """
    stem, *answered = encode([prompt, *(f"{prompt} {label}" for label in LABELS)])
    found = []
    for label, ids in zip(LABELS, answered, strict=True):
        tail = ids[len(stem) :]
        if ids[: len(stem)] != stem or len(tail) != 1:
            raise BadInput(
                f"' {label}' after {prompt[-20:]!r} is {len(tail)} tokens of this model's tokenizer, not one. "
                "Use a model where both labels are single tokens (SmolLM2 and Mistral v3 are)."
            )
        found.append(tail[0])
    return found[0], found[1]
