import pytest

from lhcq.jets import agreement
from lhcq.jets.agreement import Disagreement, check_agreement


def test_the_loops_find_fastjets_jets_on_this_machine():
    check_agreement()


def test_a_last_bit_that_differs_is_a_disagreement(monkeypatch):
    ours = agreement.cluster_four_vectors

    def round_otherwise(vectors, config):
        jets = ours(vectors, config)
        jets.vectors.px[3] *= 1 + 2**-52
        return jets

    monkeypatch.setattr(agreement, "cluster_four_vectors", round_otherwise)
    with pytest.raises(Disagreement, match=r"antikt jets .* not FastJet's to the bit"):
        check_agreement()
