"""Jets and substructure against a C++ program on FastJet and fjcontrib, built from the wheel's own headers."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import reference
from lhcq.config import ClusterConfig
from lhcq.jets.clustering import cluster_events
from lhcq.jets.vectors import FourVectors

N_EVENTS = 200

pytestmark = pytest.mark.skipif(reference.compiler() is None, reason="there is no C++ compiler")


@pytest.fixture(scope="module")
def particles(test_data: Path) -> np.ndarray:
    import h5py
    import hdf5plugin  # noqa: F401

    with h5py.File(test_data / "events_anomalydetection_tiny.h5") as file:
        return file["df/block0_values"][:N_EVENTS, :2100].reshape(-1, 700, 3)


@pytest.mark.parametrize("program", reference.PROGRAMS)
@pytest.mark.parametrize(("radius", "pt_min"), [(1.0, 20.0), (0.5, 400.0)])
def test_real_events_have_the_values_of_the_cpp_program(program, radius, pt_min, particles, tmp_path_factory):
    built = reference.build(program, tmp_path_factory.getbasetemp() / "reference")
    seconds, values = reference.run(built, FourVectors.massless(particles), radius=radius, pt_min=pt_min)
    assert 0 < seconds < 60
    assert values.shape == (N_EVENTS, 2, len(reference.COLUMNS[program]))

    config = ClusterConfig(radius=radius, pt_min=pt_min, features="full")
    records = cluster_events(particles, config, rows=np.arange(N_EVENTS), labels=None).to_pylist()
    absent = [[len(record["jets"]) <= rank for rank in (0, 1)] for record in records]
    assert np.isnan(values).all(axis=2).tolist() == absent
    for record, expected in zip(records, values, strict=True):
        for jet, row in zip(record["jets"], expected, strict=False):
            for name, value in zip(reference.COLUMNS[program], row.tolist(), strict=True):
                # Momenta are sums alone, in the same order.
                exact = name in reference.MOMENTUM
                assert jet[name] == (value if exact else pytest.approx(value, rel=1e-9)), name
