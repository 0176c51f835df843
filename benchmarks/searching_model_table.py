"""What the benchmark of searches by a language model found: its JSON, and the table made of that."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import circumstances, say
from benchmarks.searching_model_data import REGION, Place
from lhcq.evaluate.dijet import Spectrum
from lhcq.evaluate.hunt import bin_edges, hunt
from lhcq.evaluate.injection import Injected
from lhcq.evaluate.scan import judge_point
from lhcq.records.searches import read_chunk
from lhcq.storage import read_json

Floats = NDArray[np.float64]


def collect(place: Place) -> dict[str, Any]:
    """What every learner finds, of those seeds whose folds are all scored."""
    trainings: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((place.root / "scores").glob("*.json")):
        known = read_json(path)
        learner = {key: known[key] for key in ("name", "training", "device") if key in known}
        if place.scores(learner, known["seed"], known["fold"]).with_suffix(".json") == path:
            trainings.setdefault(known["name"], []).append({**known, "learner": learner})
    trainings = dict(sorted(trainings.items(), key=lambda one: _rank(one[1][0])))
    edges = bin_edges(place.config.fit_low, place.config.fit_high, place.config.regions[0])
    points, learners = [], []
    for seed in sorted({one["seed"] for some in trainings.values() for one in some}):
        put, scores = place.put(seed), {}
        for name, some in trainings.items():
            here = {one["fold"]: one for one in some if one["seed"] == seed}
            if not here:
                continue
            if len(here) < place.config.folds:
                say(
                    f"table: {name}: seed {seed} has {len(here)} of {place.config.folds} folds, and is left out"
                )
                continue
            scores[name] = np.zeros(len(put.events.rows))
            for fold, one in here.items():
                members = put.events.folds == fold
                path = place.scores(one["learner"], seed, fold)
                scores[name][members] = read_chunk(path, int(members.sum()))
        judged = judge_point(put, scores, REGION, place.config.selections, edges)
        masses = {name: _mass(place, put, values, edges) for name, values in scores.items()}
        points.append({"seed": seed, **judged, "masses": masses})
    for name, some in trainings.items():
        seconds, auc = ([one[key] for one in some] for key in ("seconds", "auc"))
        known = {"name": name, "trainings": len(some), "seconds": float(np.mean(seconds)), "auc": auc}
        learners.append({**some[0]["learner"], **known})
    return {**circumstances(), **place.facts, "points": points, "learners": learners}


def _mass(place: Place, put: Injected, scores: Floats, edges: Floats) -> float | None:
    """GeV, where the events of the clearer selection are, as the page of a search has it."""
    fitted = [
        (test, test.excess)
        for test in hunt(put.events, [scores], [REGION], place.config.selections, edges)
        if test.excess is not None
    ]
    if not fitted:
        return None
    test, excess = max(fitted, key=lambda one: one[1].z)
    peak = Spectrum(edges, REGION).peak(test.counts, excess)
    return None if peak is None else peak.mass


def _rank(training: dict[str, Any]) -> tuple[int, float]:
    """The place in the table: those without labels first, language models by their epochs."""
    if "training" in training:
        return 1, training["training"]["epochs"]
    return {"trees": 0, "idealised": 2, "supervised": 3}[training["name"]], 0.0


def lines_of(found: dict[str, Any]) -> list[str]:
    """The table: a line a learner, the median over the seeds with the least and the most."""
    shares = found["config"]["selections"]
    lines = [
        "| learner | "
        + " | ".join(f"{100 * share:g}% selected | its improvement" for share in shares)
        + " | mass, GeV | AUC in the region | a training |",
        "|---" * (4 + 2 * len(shares)) + "|",
    ]
    for one in found["learners"]:
        of = [point["learners"][one["name"]] for point in found["points"] if one["name"] in point["learners"]]
        if not of:
            continue
        cells = []
        for place in range(len(shares)):
            cells += [_spread([tests[place][key] for tests in of]) for key in ("z", "improvement")]
        cells.append(_spread([point["masses"].get(one["name"]) for point in found["points"]], 0))
        cells += [_spread(one["auc"], 3), f"{one['seconds']:.1f} s ({one.get('device', 'one core')})"]
        seeds = f" (seeds: {len(of)})" if len(of) < len(found["points"]) else ""
        lines.append(f"| {one['name']}{seeds} | {' | '.join(cells)} |")
    inclusive = _spread([point["inclusive"] for point in found["points"]])
    empty = " | ".join([""] * (2 * len(shares) + 2))
    lines.append(f"| all events | {inclusive} | {empty} |")
    return lines


def _spread(values: list[float | None], digits: int = 1) -> str:
    known = [one for one in values if one is not None]
    if not known:
        return "none"
    median = f"{np.median(known):.{digits}f}"
    return median if len(known) == 1 else f"{median} ({min(known):.{digits}f} to {max(known):.{digits}f})"
