"""What the quality benchmark found: its JSON, and the tables of docs/results.md made of that."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks.quality_data import events_of_more, row_path
from benchmarks.quality_trees import SEEDS, set_of, tree_name
from benchmarks.quality_variants import REFERENCE, VARIANTS
from benchmarks.rows import RESULTS, put_table, row
from lhcq.evaluate.metrics import Z95, metrics_of
from lhcq.manifests import read_manifest
from lhcq.records.scores import Scores, read_scores
from lhcq.storage import read_json
from lhcq.workspace import Workspace

MADE_BY = "python -m benchmarks.quality --stage table"
KEPT = (
    "n", "n_signal", "accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "auc", "auc_low", "auc_high",
    "max_sic", "ece", "nll", "unknown",
)  # fmt: skip

CLASSIFIERS = {
    "model": "model",
    "tree": "tree on the prompt's features",
    "five trees": "mean of five such trees",
    "average": "model and trees averaged",
}

Record = dict[str, Any]


def collect(place: Workspace) -> Record:
    """Everything that was trained, from its stored scores."""
    trained = {name: read_json(row_path(place, name)) for name in VARIANTS if row_path(place, name).exists()}
    templates = [
        _beside_trees(place, name, one)
        for name, one in trained.items()
        if VARIANTS[name].table == "templates"
    ]
    split = read_manifest(place.split("full"), what="the split", remedy="Run --stage data.")
    return {
        "gpu": sorted({one["device"] for one in trained.values()}),
        "counts": split["counts"],
        "dataset_sha256": split["dataset_sha256"],
        "more": events_of_more(place),
        "templates": templates,
        "trees on all features": [_all_features(place, split) for split in ("jets", "full")],
        "levers": [
            _against_reference(place, name, one)
            for name, one in trained.items()
            if VARIANTS[name].table == "levers" or name == REFERENCE
        ],
        "bounds": bounds(place, templates),
    }


def _beside_trees(place: Workspace, name: str, trained: Record) -> Record:
    found = _described(name, trained)
    for part in ("test", "released"):
        if part not in trained:
            continue
        model = _scores(place, name, part)
        found[part] = {"model": _kept(model.labels, model.p_signal, model.answers)}
        of_trees = set_of(name)
        if not (place.root / "scores" / tree_name(of_trees, SEEDS[0])).exists():
            continue
        trees = _trees(place, of_trees, part)
        five = _mean(trees)
        beside = {
            "tree": trees[0].p_signal,
            "five trees": five,
            "average": (model.p_signal + five) / 2,
        }
        found[part] |= {
            what: _kept(model.labels, p_signal) | {"model_minus": _difference(model, p_signal)}
            for what, p_signal in beside.items()
        }
    return found


def _all_features(place: Workspace, split: str) -> Record:
    """The trees on all features that `lhcq prepare` fits, and the mean of five such."""
    found: Record = {"split": split}
    for part in ("test", "released"):
        path = place.root / "scores" / tree_name(f"{split}-all", SEEDS[0]) / f"{part}.parquet"
        if path.exists():
            trees = _trees(place, f"{split}-all", part)
            found[part] = {
                "tree": _kept(trees[0].labels, trees[0].p_signal),
                "five trees": _kept(trees[0].labels, _mean(trees)),
            }
    return found


def _against_reference(place: Workspace, name: str, trained: Record) -> Record:
    reference = _scores(place, REFERENCE, "test")
    model = _scores(place, name, "test")
    return {
        **_described(name, trained),
        "test": _kept(model.labels, model.p_signal, model.answers),
        "minus_reference": _difference(model, reference.p_signal),
        **({"released": _trim(trained["released"])} if "released" in trained else {}),
    }


def _described(name: str, trained: Record) -> Record:
    kept = ("what", "way", "tokens", "example", "n_train", "steps", "loss_of_last_tenth", "device", "config")
    validation = {
        "validation_auc": trained["validation"]["auc"],
        "validation_nll": trained["validation"]["nll"],
    }
    return {"name": name, **{key: trained[key] for key in kept}, **validation}


def bounds(place: Workspace, templates: list[Record]) -> list[Record]:
    """The template is chosen on the validation part, and judged on the test part."""
    best = max(templates, key=lambda one: one["validation_auc"])
    test, name = best["test"], best["name"]
    accuracy = {"low": test["model"]["accuracy_low"], "high": test["model"]["accuracy_high"]}
    found = [row("accuracy at 1:1", test["model"]["accuracy"], "", at_least=0.90, template=name, **accuracy)]

    def above(what: str, difference: Record) -> None:
        interval = {bound: difference[bound] for bound in ("low", "high")}
        found.append(
            row(f"AUC less that of {what}", difference["auc"], "", at_least=0.0, template=name, **interval)
        )

    for key, what in (("tree", "the tree"), ("five trees", "the mean of five trees")):
        if difference := test.get(key, {}).get("model_minus"):
            above(f"{what} on the prompt's features", difference)
    if any(one["name"] == "recipe" and "average" in one["test"] for one in templates):
        model, recipe = _scores(place, name, "test"), _scores(place, "recipe", "test")
        average = (recipe.p_signal + _mean(_trees(place, "recipe", "test"))) / 2
        above(
            "the recipe's model and trees averaged, of 240,000 training events", _difference(model, average)
        )
    return found


def _trees(place: Workspace, name: str, part: str) -> list[Scores]:
    """What each of the five trees of a set says."""
    return [_scores(place, tree_name(name, seed), part) for seed in SEEDS]


def _mean(trees: list[Scores]) -> NDArray[np.float64]:
    return np.asarray(np.mean([one.p_signal for one in trees], axis=0))


def _scores(place: Workspace, name: str, part: str) -> Scores:
    return read_scores(place.root / "scores" / name / f"{part}.parquet")


def _kept(labels: Any, p_signal: Any, answers: Any = None) -> Record:
    return _trim(metrics_of(labels, p_signal, answers).model_dump())


def _trim(figures: Record) -> Record:
    return {key: figures[key] for key in KEPT}


def _difference(model: Scores, other: NDArray[np.float64]) -> Record:
    auc, low, high = auc_difference(model.labels, model.p_signal, other)
    return {"auc": auc, "low": low, "high": high}


def auc_difference(
    labels: NDArray[Any], one: NDArray[np.float64], other: NDArray[np.float64]
) -> tuple[float, float, float]:
    """AUC of `one` less that of `other` on the same events, with its 95% interval: DeLong et al. (1988), paired."""
    signal, background = labels == 1, labels == 0
    m, n = int(signal.sum()), int(background.sum())
    of_signal, of_background = [], []
    for score in (one, other):
        together = rankdata(np.concatenate([score[signal], score[background]]))
        of_signal.append((together[:m] - rankdata(score[signal])) / n)
        of_background.append(1.0 - (together[m:] - rankdata(score[background])) / m)
    shift = float(np.mean(of_signal[0] - of_signal[1]))
    variance = (
        np.var(of_signal[0] - of_signal[1], ddof=1) / m
        + np.var(of_background[0] - of_background[1], ddof=1) / n
    )
    spread = Z95 * math.sqrt(variance)
    return shift, shift - spread, shift + spread


def store(found: Record) -> None:
    """Write results/quality.json."""
    (RESULTS / "quality.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def write_document(found: Record) -> None:
    """Put the tables into docs/results.md, each between its marks; what stands around them stays."""
    for name, lines in tables(found).items():
        put_table(name, lines, MADE_BY)


def tables(found: Record) -> dict[str, list[str]]:
    """The tables of the document, by name."""
    return {
        "templates": to_table(
            ["prompt", "tokens", "classifier", "accuracy", "AUC", "max SIC", "model's AUC less this one's"],
            (line for one in found["templates"] for line in _template_lines(one)),
        ),
        "bounds": to_table(
            ["what", "value", "interval", "holds"],
            (
                [
                    f"{one['figure']} (`{one['template']}`)",
                    f"{one['value']:+.5f}" if "AUC" in one["figure"] else f"{one['value']:.4f}",
                    _bounds_interval(one),
                    "yes" if one["holds"] else "**no**",
                ]
                for one in found["bounds"]
            ),
        ),
        "all features": to_table(
            ["all features of", "classifier", "accuracy", "AUC", "max SIC", "AUC on released events"],
            (line for one in found["trees on all features"] for line in _all_features_lines(one)),
        ),
        "levers": to_table(
            ["lever", "tokens", "accuracy", "AUC", f"less that of `{REFERENCE}`"],
            (_lever_line(one) for one in found["levers"]),
        ),
        "released": to_table(
            ["prompt", "classifier", "balanced accuracy", "AUC", "model's AUC less this one's"],
            (line for one in found["templates"] if "released" in one for line in _released_lines(one)),
        ),
    }


def _bounds_interval(one: Record) -> str:
    shown = "{:+.5f} to {:+.5f}" if "AUC" in one["figure"] else "{:.4f} to {:.4f}"
    return shown.format(one["low"], one["high"])


def _template_lines(one: Record) -> Iterable[list[str]]:
    for key, what in CLASSIFIERS.items():
        if key not in one["test"]:
            continue
        found = one["test"][key]
        first = [f"`{one['name']}`: {one['what']}", f"{one['tokens']:.0f}"] if key == "model" else ["", ""]
        yield [
            *first,
            what,
            _interval(found, "accuracy"),
            _interval(found, "auc"),
            f"{found['max_sic']:.1f}" if "max_sic" in found else "",
            _signed(found.get("model_minus")),
        ]


def _all_features_lines(one: Record) -> Iterable[list[str]]:
    for key, what in (("tree", "tree"), ("five trees", "mean of five trees")):
        yield [
            f"`--features {one['split']}`" if key == "tree" else "",
            what,
            _interval(one["test"][key], "accuracy"),
            _interval(one["test"][key], "auc"),
            f"{one['test'][key]['max_sic']:.1f}",
            _interval(one["released"][key], "auc", 3) if "released" in one else "",
        ]


def _released_lines(one: Record) -> Iterable[list[str]]:
    for key, what in CLASSIFIERS.items():
        if key not in one["released"]:
            continue
        found = one["released"][key]
        yield [
            f"`{one['name']}`" if key == "model" else "",
            what,
            f"{found['balanced_accuracy']:.3f}" if "balanced_accuracy" in found else "",
            _interval(found, "auc", 3),
            _signed(found.get("model_minus"), 3),
        ]


def _lever_line(one: Record) -> list[str]:
    return [
        f"`{one['name']}`: {one['what']}",
        f"{one['tokens']:.0f}",
        f"{one['test']['accuracy']:.4f}",
        f"{one['test']['auc']:.5f}",
        "" if one["name"] == REFERENCE else _signed(one["minus_reference"]),
    ]


def _interval(found: Record, name: str, digits: int = 4) -> str:
    if name not in found:
        return ""
    low, high = found.get(f"{name}_low"), found.get(f"{name}_high")
    return f"{found[name]:.{digits}f}" + ("" if low is None else f" ({low:.{digits}f} to {high:.{digits}f})")


def _signed(found: Record | None, digits: int = 4) -> str:
    if found is None:
        return ""
    shown = f"{found['auc']:+.{digits}f}"
    return shown + (f" ({found['low']:+.{digits}f} to {found['high']:+.{digits}f})" if "low" in found else "")


def to_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return [
        "| " + " | ".join(cells) + " |"
        for cells in ([*header], ["---"] * len(header), *(list(line) for line in lines))
    ]
