"""A sample of what `python -m tests.fuzz.jets` compares."""

from lhcq.jets.libm import lanes_for_libm
from tests.fuzz.jets import compare_functions, compare_jets


def test_jets_of_strange_events_have_the_bits_of_fastjets():
    seen = compare_jets(4_000, seed=11)
    assert seen["by FastJet"].total() >= 4_000
    assert +seen["not FastJet's"] == {}


def test_functions_of_a_sample_have_the_bits_of_libm():
    directions, circular, hyperbolic = compare_functions(1 << 20, seed=11)
    assert (directions, circular) == (0, 0)
    assert hyperbolic == 0 or lanes_for_libm("hyperbolic")
