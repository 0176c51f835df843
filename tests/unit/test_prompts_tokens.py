import pytest

from lhcq.errors import BadInput
from lhcq.prompts.tokens import TokenAudit, audit


def encode(prompts: list[str]) -> list[list[int]]:
    """One token a character."""
    return [list(prompt.encode()) for prompt in prompts]


def test_mean_p99_and_max_are_lengths_of_the_prompts():
    prompts = ["x" * length for length in range(1, 101)]
    assert audit(prompts, encode, max_tokens=100) == TokenAudit(mean=50.5, p99=100, max=100, n=100)
    assert audit(prompts * 10, encode, max_tokens=100).p99 == 100
    assert audit(["x"] * 200 + ["y" * 9], encode, max_tokens=9) == TokenAudit(
        mean=(200 + 9) / 201, p99=1, max=9, n=201
    )


def test_more_prompts_than_a_batch_are_all_measured():
    prompts = ["xx"] * 9000
    prompts[8999] = "xxxxx"
    assert audit(prompts, encode, max_tokens=5).max == 5


def test_a_prompt_that_is_too_long_is_refused_and_named_by_its_row():
    prompts = ["x", "xxxx", "xxxxx"]
    with pytest.raises(BadInput, match=r"row 70: its prompt has 4 tokens, 3 are allowed, and 2 of 3 prompts"):
        audit(prompts, encode, max_tokens=3, rows=[7, 70, 71])
    with pytest.raises(BadInput, match="row 1: its prompt has 4 tokens"):
        audit(prompts, encode, max_tokens=3)


def test_nothing_to_measure_is_refused():
    with pytest.raises(BadInput, match="no prompt to measure"):
        audit([], encode, max_tokens=3)
