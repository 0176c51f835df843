"""What the benchmark of particles found: its JSON, and the tables of docs/results.md made of that."""

import statistics
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.particles_data import MORE_EVENTS, RELEASED, facts_of_events, scores_path
from benchmarks.particles_trees import FEATURES
from benchmarks.quality_table import auc_difference, to_table
from benchmarks.rows import circumstances, put_table, say, write_result
from lhcq.evaluate.metrics import Z95, metrics_of, wilson_interval
from lhcq.records.scores import Scores, read_scores
from lhcq.storage import read_json
from lhcq.workspace import Workspace

MADE_BY = "python -m benchmarks.particles --stage table"
RESULT = "particles"

Record = dict[str, Any]


def collect(place: Workspace) -> Record:
    """Everything that was trained, by its validation; and of each kind the best one there, on the test subset."""
    rows = [
        read_json(path)
        for path in sorted((place.root / "rows").glob("*-[0-9]*-[0-9]*.json"))
        if "losses" not in path.name
    ]
    groups: dict[tuple[str, int], list[Record]] = {}
    for one in rows:
        groups.setdefault((one["name"], one["n_train"]), []).append(one)
    tried = [_tried(seeds) for seeds in groups.values()]
    most = {
        more: max(one["n_train"] for one in tried if one["more"] == more)
        for more in {one["more"] for one in tried}
    }
    best: dict[str, Record] = {}
    for one in tried:
        kind = one["kind"]
        if one["n_train"] == most[one["more"]] and (
            kind not in best or one["validation_auc"] > best[kind]["validation_auc"]
        ):
            best[kind] = one
    tokens = place.root / "tokens.json"
    return {
        **circumstances(),
        **facts_of_events(place),
        "tokens": read_json(tokens) if tokens.exists() else None,
        "tried": sorted(tried, key=lambda one: (one["n_train"], one["kind"], -one["validation_auc"])),
        "test": [_on_test(place, one, best.get(_opponent(one))) for one in best.values()],
    }


def _opponent(one: Record) -> str:
    """The kind of the trees that had the same events to learn from."""
    return FEATURES + MORE_EVENTS * one["more"]


def _tried(seeds: list[Record]) -> Record:
    first = seeds[0]
    aucs = [one["validation"]["auc"] for one in seeds]
    speeds = ("training_tokens_per_second", "scoring_tokens_per_second")
    return {
        **{key: first[key] for key in ("name", "kind", "what", "n_train")},
        "more": first.get("more", False),
        **{
            key: first[key]
            for key in ("tokens", "constituents", "coding", "steps", "device", "weights")
            if key in first
        },
        "seeds": [one["seed"] for one in seeds],
        "validation_aucs": aucs,
        "validation_auc": statistics.fmean(aucs),
        "spread": statistics.stdev(aucs) if len(aucs) > 1 else None,
        **{
            key: statistics.median(one[key] for one in seeds)
            for key in speeds
            if all(one.get(key) for one in seeds)
        },
        **{
            f"{key}_over_compact": statistics.median(one[key] / one["compact"][key] for one in seeds)
            for key in speeds
            if all(one.get(key) and one.get("compact", {}).get(key) for one in seeds)
        },
    }


def _on_test(place: Workspace, one: Record, trees: Record | None) -> Record:
    """The metrics of each seed, and the mean difference to the trees on 34 features of the same seeds."""
    scores = [_scores(place, one, seed) for seed in one["seeds"]]
    found: Record = {
        "name": one["name"], "kind": one["kind"], "what": one["what"], "seeds": one["seeds"],
        "metrics": [_metrics(score) for score in scores],
    }  # fmt: skip
    transfers = [
        _scores(place, one, seed, RELEASED) for seed in one["seeds"] if _has_released(place, one, seed)
    ]
    if transfers:
        found["released"] = [_metrics(score) for score in transfers]
    if trees is not None and one is not trees:
        beside = [_scores(place, trees, seed) for seed in trees["seeds"]]
        # As many trees as there are models, and by turns where there are fewer.
        pairs = [(score, beside[at % len(beside)]) for at, score in enumerate(scores)]
        found["minus_trees"] = mean_difference(
            scores[0].labels, [(score.p_signal, other.p_signal) for score, other in pairs]
        )
    return found


def mean_difference(
    labels: NDArray[Any], pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> Record:
    """The mean over seeds of the AUC's difference, each paired.

    Its interval has the scatter of the seeds, where there are several, and the choice of test events, which is one.
    """
    differences = [auc_difference(labels, one, other) for one, other in pairs]
    shifts = [shift for shift, _, _ in differences]
    scatter = statistics.stdev(shifts) if len(shifts) > 1 else 0.0
    sampling = statistics.fmean((high - low) / (2 * Z95) for _, low, high in differences)
    half = Z95 * (scatter**2 / len(shifts) + sampling**2) ** 0.5
    mean = statistics.fmean(shifts)
    return {"auc": mean, "low": mean - half, "high": mean + half, "seeds": shifts}


def _scores(place: Workspace, one: Record, seed: int, subset: str = "test") -> Scores:
    return read_scores(scores_path(place, one["name"], one["n_train"], seed, subset))


def _has_released(place: Workspace, one: Record, seed: int) -> bool:
    return scores_path(place, one["name"], one["n_train"], seed, RELEASED).exists()


def _metrics(score: Scores) -> Record:
    found = metrics_of(score.labels, score.p_signal, score.answers).model_dump(mode="json")
    kept = (
        "auc",
        "auc_low",
        "auc_high",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "max_sic",
        "unknown",
        "n",
    )
    return {**{key: found[key] for key in kept if key in found}, "max_sic_band": sic_band(found)}


def sic_band(metrics: Record) -> list[float] | None:
    """What Wilson's intervals of both efficiencies leave of the largest significance improvement."""
    if metrics["max_sic"] is None:
        return None
    n_signal, n_background = metrics["n_signal"], metrics["n"] - metrics["n_signal"]
    low_s, high_s = wilson_interval(round(metrics["max_sic_signal_efficiency"] * n_signal), n_signal)
    kept = round(metrics["max_sic_background_efficiency"] * n_background)
    low_b, high_b = wilson_interval(kept, n_background)
    return [low_s / high_b**0.5, high_s / low_b**0.5]


def store(found: Record) -> None:
    """Write results/particles.json."""
    write_result(RESULT, found)


def write_document(found: Record) -> None:
    """Put the tables into docs/results.md, each between its marks; what stands around them stays."""
    for name, lines in tables(found).items():
        put_table(name, lines, MADE_BY)
        say("\n".join(lines))


def tables(found: Record) -> dict[str, list[str]]:
    """The tables of the document, by name."""
    made = {
        "particles": to_table(
            [
                "classifier",
                "AUC",
                "max SIC",
                "AUC less that of trees on 34 features",
                "AUC on released events",
            ],
            (line for one in found["test"] for line in _test_lines(one)),
        ),
        "particles tried": to_table(
            ["trained", "events", "tokens", "AUC on validation", "seeds", "tokens/s training", "scoring"],
            (_tried_line(one) for one in found["tried"]),
        ),
    }
    if found["tokens"]:
        made["particles tokens"] = _token_table(found["tokens"]["rows"])
    return made


def _test_lines(one: Record) -> Iterable[list[str]]:
    first = one["metrics"][0]
    sic = statistics.fmean(metrics["max_sic"] or 0.0 for metrics in one["metrics"])
    band = first["max_sic_band"]
    shift = one.get("minus_trees")
    yield [
        f"{one['kind']}: `{one['name']}`",
        _auc(one["metrics"], 4),
        f"{sic:.1f} ({band[0]:.1f} to {band[1]:.1f})" if band else "",
        f"{shift['auc']:+.4f} ({shift['low']:+.4f} to {shift['high']:+.4f})" if shift else "",
        _auc(one["released"], 3) if "released" in one else "",
    ]


def _auc(seeds: list[Record], digits: int) -> str:
    """The mean over seeds, with the interval of the first."""
    auc, first = statistics.fmean(metrics["auc"] for metrics in seeds), seeds[0]
    if not first["auc_low"]:
        return f"{auc:.{digits}f}"
    return f"{auc:.{digits}f} ({first['auc_low']:.{digits}f} to {first['auc_high']:.{digits}f})"


def _tried_line(one: Record) -> list[str]:
    def speed(key: str) -> str:
        if one.get(key) is None:
            return ""
        over = one.get(f"{key}_over_compact")
        return f"{one[key]:,.0f}" + (f" ({over:.2f} of compact)" if over else "")

    spread = "" if one["spread"] is None else f" ± {one['spread']:.4f}"
    return [
        f"`{one['name']}`: {one['what']}",
        f"{one['n_train']:,}",
        f"{one['tokens']:.0f}" if "tokens" in one else "",
        f"{one['validation_auc']:.4f}{spread}",
        str(len(one["seeds"])),
        speed("training_tokens_per_second"),
        speed("scoring_tokens_per_second"),
    ]


def _token_table(rows: list[Record]) -> list[str]:
    counted = [one for one in rows if "mean" in one]
    tokenizers = list(dict.fromkeys(one["tokenizer"] for one in counted))
    places = list(dict.fromkeys((one["coding"], one["constituents"]) for one in counted))
    means = {(one["tokenizer"], one["coding"], one["constituents"]): one["mean"] for one in counted}
    return to_table(
        ["coding", "constituents of either jet", *(f"tokens, {one}" for one in tokenizers)],
        (
            [f"`{coding}`", str(most), *(f"{means[one, coding, most]:.1f}" for one in tokenizers)]
            for coding, most in places
        ),
    )
