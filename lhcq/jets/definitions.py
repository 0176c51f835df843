"""Which tau_N a dataset has, and what follows where two meet: about other axes it is another quantity."""

from collections.abc import Iterable, Mapping
from typing import Any

from lhcq.errors import BadInput

PUBLISHED = "published"
"""Of a dataset imported from a file that does not say, as the released ones. Of 513,302 jets in those 1 has tau2/tau1
above 0.98 and none above 1, which `kt` axes cannot give (71 and 56 of 2,000), and which both others do (0 of
2,000)."""
_PUBLISHED_JETS = {"algorithm": "antikt", "radius": 1.0}
_REMEDY = "Cluster with `--axes wta-kt` (the default) or `onepass-kt`, which agree with them in shape."


def axes_of(manifest: Mapping[str, Any]) -> str:
    """`kt`, `onepass-kt` or `wta-kt` where that is known, else `PUBLISHED`."""
    if told := manifest.get("tau_axes"):
        return str(told)
    config = manifest.get("config")  # of an earlier lhcq
    return config.get("axes", "kt") if config else PUBLISHED


def compare_axes(
    columns: Iterable[str], trained: Mapping[str, Any], given: Mapping[str, Any], *, dataset: str
) -> str | None:
    """What to warn of where prompts of `columns`, trained on one dataset, are made of another; by their manifests.

    None where nothing is wrong. Raises `BadInput` where both were clustered and their tau_N are about other axes.
    """
    ours, theirs = axes_of(trained), axes_of(given)
    if ours == theirs or not any(name.startswith("tau") for name in columns):
        return None
    if PUBLISHED not in (ours, theirs):
        raise BadInput(
            f"{dataset}: its tau_N are about {theirs} axes, not {ours}, which the run was trained on. "
            f"Cluster its events with `--axes {ours}`."
        )
    if "kt" not in (ours, theirs):
        return None
    return (
        f"{dataset}: tau_N about kt axes meets that of a published file, which is another quantity. {_REMEDY}"
    )


def resolve_axes(said: str | None, given: str | None, *, source: str) -> str:
    """About which axes the tau_N of an imported file are: as the file says, as its owner says, or `PUBLISHED`.

    Raises `BadInput` where both say something, and not the same.
    """
    if said and given and said != given:
        raise BadInput(f"{source}: says that its tau_N are about {said} axes, not {given}. Leave --axes out.")
    return said or given or PUBLISHED


def compared_axes(first: str, second: str) -> str | None:
    """What to say beside a comparison of what was learnt from tau_N about two kinds of axes; None for one kind."""
    if first == second or ("kt" not in (first, second) and PUBLISHED in (first, second)):
        return None
    kinds = " and ".join("a published file's" if one == PUBLISHED else one for one in (first, second))
    return f"their tau_N are about other axes ({kinds}), which are other quantities"


def unknown_jets(
    ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None, *, trained_on: str, dataset: str
) -> str | None:
    """What to warn of where a run was trained on one dataset's jets and is asked about another's, by their
    configurations: None for jets that were imported, which are those of the published files as far as can be told.
    """
    clustered = ours or theirs
    if bool(ours) == bool(theirs) or clustered is None:
        return None
    if all(clustered[name] == value for name, value in _PUBLISHED_JETS.items()):
        return None
    imported, other = (dataset, trained_on) if ours else (trained_on, dataset)
    return (
        f"{imported}: was imported, and the published files have anti-kt jets of R = {_PUBLISHED_JETS['radius']:g}; "
        f"those of {other} are others ({clustered['algorithm']}, R = {clustered['radius']:g}). A model knows the "
        "jets that it was trained on."
    )


def export_warning(manifest: Mapping[str, Any]) -> str | None:
    """What to say beside an export in the columns of the released files."""
    if axes_of(manifest) != "kt":
        return None
    return f"tau_N is about kt axes, and that of the released files is another quantity. {_REMEDY}"
