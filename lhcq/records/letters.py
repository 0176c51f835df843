"""How a quantity of a jet's constituent stands in a prompt: one letter, a single token, for the bin that it is in.

That is so for SmolLM2's tokenizer and for Mistral's, behind a space and before a space, a semicolon or a colon.
"""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""By rising bin."""
QUANTITIES = 3
"""Letters of a constituent: share of the jet's pt, and two distances to its axis."""
SEPARATOR = ";"
"""Between the numbers of a prompt and the letters of its jets, the heavier one's first."""


def split_prompt(prompt: str) -> tuple[str, list[list[str]]]:
    """The numbers of a prompt, as it has them, and the letters of each jet; none where it has no constituents."""
    numbers, *jets = prompt.removesuffix(":").split(SEPARATOR)
    return numbers, [one.split() for one in jets]
