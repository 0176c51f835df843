"""Which tau_N a dataset has, and what follows where two meet: about other axes it is another quantity."""

from collections.abc import Iterable, Mapping
from typing import Any

from lhcq.errors import BadInput

PUBLISHED = "published"
"""Of an imported dataset. The released files do not say their axes. Of 513,302 jets in them 1 has tau2/tau1 above
0.98 and none above 1, which `kt` axes cannot give (71 and 56 of 2,000), and which both others do (0 of 2,000)."""
_REMEDY = "Cluster with `--axes onepass-kt` or `wta-kt`, which agree with them in shape."


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


def export_warning(manifest: Mapping[str, Any]) -> str | None:
    """What to say beside an export in the columns of the released files."""
    if axes_of(manifest) != "kt":
        return None
    return f"tau_N is about kt axes, and that of the released files is another quantity. {_REMEDY}"
