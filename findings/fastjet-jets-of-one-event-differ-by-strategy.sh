#!/usr/bin/env bash
# FastJet: on angles that lie on a grid, the strategy decides which jets an event has.
#
# The strategies are said to differ in speed alone. Where two distances are equal, which calorimeter towers make common,
# each takes another pair first. Three particles (pt 25, 50, 50) give jets of 75 and 50 GeV by six strategies and of 100
# and 25 by NlnN. `Best` chooses the strategy by the number of particles, so particles far away can change a jet.
# The strategy is chosen here through genkt with p = -1, which is anti-kt.
# Seen with 3.5.2.0: of 200 events on a grid of 0.25, other jets than by N2Plain in 2 by N2Tiled and N3Dumb, 4 by the lazy
# tilings, 5 by N2MinHeapTiled, 7 by NlnN.
# Source: this program.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet fastjet==3.5.2.0 awkward==2.14.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON' 2>&1 | grep -v '^#'
from collections import Counter
from importlib.metadata import version

import fastjet
import numpy as np

STRATEGIES = ("N2Plain", "N2Tiled", "N2MinHeapTiled", "NlnN", "N3Dumb", "N2MHTLazy9", "N2MHTLazy25")


def jets(particles, strategy, radius):
    momenta = [
        fastjet.PseudoJet(pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta))
        for pt, eta, phi in particles
    ]
    definition = fastjet.JetDefinition(
        fastjet.genkt_algorithm, radius, -1.0, fastjet.E_scheme, getattr(fastjet, strategy)
    )
    sequence = fastjet.ClusterSequence(momenta, definition)
    assert sequence.strategy_string() == strategy
    return [round(jet.pt(), 6) for jet in fastjet.sorted_by_pt(sequence.inclusive_jets(20.0))]


print("fastjet", version("fastjet"))
three = {name: jets([(25, 0.5, -0.25), (50, -0.5, -0.25), (50, 0, -0.25)], name, 0.6) for name in STRATEGIES}
print(three)
assert three["N2Plain"] == [75.0, 50.0]
assert three["NlnN"] == [100.0, 25.0]

numbers = np.random.default_rng(1)
other = Counter()
for _ in range(200):
    event = list(
        zip(
            numbers.integers(1, 20, 100).astype(float),
            numbers.integers(-10, 11, 100) * 0.25,
            numbers.integers(-12, 13, 100) * 0.25,
            strict=True,
        )
    )
    plain = jets(event, "N2Plain", 1.0)
    for name in STRATEGIES[1:]:
        found = jets(event, name, 1.0)
        same = len(found) == len(plain) and np.allclose(found, plain, atol=1e-3)
        other[name] += not same
print("events of 200 with other jets than by N2Plain:", dict(other))
assert other["NlnN"] > 0
assert sum(other.values()) > other["NlnN"]
PYTHON
