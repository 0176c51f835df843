"""A sample of what `python -m tests.fuzz.jets` compares."""

import pytest

from lhcq.jets.libm import lanes_for_libm
from tests.fuzz.jets import KINDS, MOST_ERRORS, NOT_FASTJETS, SLACK, compare_functions, compare_jets

pytestmark = pytest.mark.usefixtures("compiled_loops")


def test_jets_of_strange_events_have_the_bits_of_fastjets():
    seen = compare_jets(2_000, seed=1)
    assert seen["by FastJet"].total() >= 2_000
    assert set(seen["by FastJet"]) == set(KINDS)
    assert seen["tied"]["duplicates"] > 0
    assert +seen[NOT_FASTJETS] == {}


def test_functions_of_a_sample_have_the_bits_of_libm_and_its_precision():
    (directions, circular, hyperbolic), errors = compare_functions(1 << 20, seed=11)
    assert (directions, circular) == (0, 0)
    assert hyperbolic == 0 or lanes_for_libm("hyperbolic")
    assert {name for name, error in errors.items() if error > MOST_ERRORS[name] + SLACK} == set()
