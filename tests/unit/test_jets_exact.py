"""log and atan2 in lanes have the bits of the host's libm."""

import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lhcq.jets import exact, fixed, libm
from lhcq.jets.exact import ALL_LANES
from lhcq.jets.libm import count_differences, lanes_for_libm

N = 1 << 17


def differences(y, x, ratio) -> int:
    return count_differences(
        *(np.ascontiguousarray(values, np.float64) for values in (y, x, ratio)), np.empty(24)
    )


@pytest.mark.parametrize("seed", range(4))
def test_random_directions_have_the_bits_of_libm(seed):
    rng = np.random.default_rng(seed)
    y, x = rng.normal(0, 1, (2, N)) * np.exp(rng.normal(0, 4, (2, N)))
    assert differences(y, x, np.exp(-rng.exponential(3, N))) == 0
    assert differences(y, np.abs(x), 1 + rng.normal(0, 0.01, N)) == 0
    assert differences(y * 1e-6, x, np.exp(rng.uniform(-130, 130, N))) == 0


def test_results_that_lie_in_the_middle_between_two_doubles_have_the_bits_of_libm():
    rng = np.random.default_rng(7)
    # numbers whose logarithm and arctangent are as near to a middle as any double takes them
    logs, angles = rng.uniform(-12, -0.5, N), rng.uniform(0.8, 2.3, N)
    steps = rng.integers(-2, 3, N)
    near = np.exp(logs.astype(np.longdouble) + 0.5 * np.spacing(logs)).astype(np.float64)
    x = rng.uniform(0.5, 1.0, N)
    y = (np.tan(angles.astype(np.longdouble) + 0.5 * np.spacing(angles)) * x).astype(np.float64)
    assert (
        differences(
            np.abs(y + steps * np.spacing(y)), np.where(y < 0, -x, x), near + steps * np.spacing(near)
        )
        == 0
    )


def test_what_is_special_is_left_to_libm():
    numbers = [0.0, -0.0, 1.0, -1.0, 5e-324, 1e-310, 1e300, -1e300, 2.0**-200, 2.0**200, math.inf, -math.inf]
    pairs = [(y, x) for y in numbers for x in numbers]
    y, x = np.array(pairs).T
    ratio = np.resize(
        [5e-324, 1e-310, 1e300, 2.0**-200, 2.0**200, 1.0, 1 - 2**-53, 1 + 2**-52, math.inf], len(y)
    )
    assert len(y) % 8 == 0
    assert differences(y, x, ratio) == 0


def test_the_tables_are_exact_to_more_than_a_hundred_bits():
    for step in (1, 37, 128):  # against Machin's and other sums in integers
        high, low = exact._ATANS[step]
        tangent = math.tan(high)
        assert abs(tangent + (1 + tangent * tangent) * low - step / 128) < 1e-15
        assert abs(low) <= math.ulp(high) / 2
    quarter = fixed.atan_fixed(1, 1)
    machin = 4 * fixed.atan_fixed(1, 5) - fixed.atan_fixed(1, 239)
    assert abs(quarter - machin) < 1 << 16
    assert abs(fixed.log_fixed(3, 2) - fixed.log_fixed(9, 8) - fixed.log_fixed(4, 3)) < 1 << 16
    c, high, low = exact._LOGS[:, :3].T
    assert np.abs(np.exp(high + low) * c - 1).max() < 1e-15


def test_every_reduced_argument_of_the_logarithm_is_a_double():
    """c z - 1 with c of eight bits has no more than 53 bits if it is less than 2^-7."""
    for step in range(256):
        c = exact._LOGS[step, 0]
        assert c == round(c * 256) / 256
        for end in (step, step + 1):
            z = float(np.int64(exact._LOG_FIRST + (end << 44)).view(np.float64))
            assert abs(c * z - 1) < 2**-7


def test_a_libm_that_errs_by_more_is_found_out(monkeypatch):
    assert lanes_for_libm("directions") == 0
    monkeypatch.setattr(libm, "count_differences", lambda *_: 3)
    lanes_for_libm.cache_clear()
    try:
        assert lanes_for_libm("directions") == ALL_LANES
    finally:
        lanes_for_libm.cache_clear()


def test_jets_have_the_same_bits_when_all_lanes_are_left_to_libm(monkeypatch):
    assert digest_of_jets() == digest_of_jets(monkeypatch)


def digest_of_jets(monkeypatch=None, features="full") -> str:
    """Of jets, and with "full" of their substructure, of made-up events, by each algorithm."""
    import hashlib

    from lhcq.config import ClusterConfig
    from lhcq.jets import clustering, substructure
    from lhcq.jets.vectors import FourVectors

    if monkeypatch is not None:
        for module in (clustering, substructure):
            monkeypatch.setattr(module, "lanes_for_libm", lambda _: ALL_LANES)
    rng = np.random.default_rng(5)
    counts = rng.integers(0, 60, 30)
    px, py, pz = rng.normal(0, 20, (3, counts.sum()))
    e = np.sqrt(px * px + py * py + pz * pz)
    found = hashlib.sha256()
    for algorithm in ("antikt", "kt", "cambridge"):
        config = ClusterConfig(algorithm=algorithm, radius=0.9, pt_min=0.0, features=features)
        jets = clustering.cluster_four_vectors(FourVectors(counts=counts, px=px, py=py, pz=pz, e=e), config)
        for column in (
            jets.vectors.px,
            jets.vectors.e,
            jets.starts,
            jets.members,
            jets.pt_lead,
            *([jets.substructure] if features == "full" else []),
        ):
            found.update(np.ascontiguousarray(column).tobytes())
    return found.hexdigest()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the features that are left out are those of x86")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("without", "features"),
    [
        ("avx512", "jets"),
        # All loops are compiled again, which takes a minute where three processes want two cores.
        pytest.param("avx512", "full", marks=pytest.mark.torture),
        pytest.param("avx", "full", marks=pytest.mark.torture),
    ],
)
def test_jets_have_the_same_bits_on_a_processor_with_narrower_vectors(tmp_path, without, features):
    """Without "avx" there is no fused multiplication either: LLVM calls libm's."""
    import llvmlite.binding

    narrowed = ",".join(
        (
            "-"
            if without in name or (without == "avx" and name in ("fma", "f16c", "fma4", "xop")) or not has
            else "+"
        )
        + name
        for name, has in llvmlite.binding.get_host_cpu_features().items()
    )
    code = f"import test_jets_exact as test; print(test.digest_of_jets(features={features!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "NUMBA_CPU_NAME": "x86-64",
            "NUMBA_CPU_FEATURES": narrowed,
            "NUMBA_CACHE_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest_of_jets(features=features)
