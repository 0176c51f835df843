"""A sample of what `python -m tests.fuzz.jets` compares."""

from tests.fuzz.jets import compare_functions, compare_jets


def test_jets_of_strange_events_have_the_bits_of_fastjets():
    compared, wrong = compare_jets(4_000, seed=11)
    assert compared.total() >= 4_000
    assert +wrong == {}


def test_log_and_atan2_of_a_sample_have_the_bits_of_libm():
    assert compare_functions(1 << 20, seed=11) == 0
