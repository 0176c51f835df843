"""The two answers, and the tokens that each one is."""

from lhcq.errors import BadInput
from lhcq.model.tokens import Encoder
from lhcq.records.labels import LABELS


def label_ids(encode: Encoder, prompt: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The token ids of " background" and " signal" as they follow `prompt`: one each, for most tokenizers.

    Raises `BadInput` when a label cannot be told from the prompt, or is not told from the other by its tokens.
    """
    stem, *answered = encode([prompt, *(f"{prompt} {label}" for label in LABELS)])
    found = []
    for label, ids in zip(LABELS, answered, strict=True):
        if ids[: len(stem)] != stem or len(ids) == len(stem):
            raise BadInput(
                f"' {label}' after {prompt[-20:]!r} changes the prompt's own tokens in this model's tokenizer. "
                "Use another model (SmolLM2 and Mistral v3 keep them apart)."
            )
        found.append(tuple(ids[len(stem) :]))
    if found[0] == found[1]:
        raise BadInput(
            f"' {LABELS[0]}' and ' {LABELS[1]}' are the same tokens of this model's tokenizer. Use another model."
        )
    return found[0], found[1]
