"""The model card of an exported checkpoint, as the hub and PEFT expect it: a YAML head and a README."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined

from lhcq.records.events import events_sha256
from lhcq.records.metrics import Metrics
from lhcq.report.dataset_page import said_config
from lhcq.report.table import printed_interval, printed_sic
from lhcq.report.views import RunView
from lhcq.storage import MANIFEST, read_json
from lhcq.workspace import Workspace


class Base(Protocol):
    """What a card says of the base model."""

    @property
    def name(self) -> str:
        """As others find it."""

    @property
    def on_hub(self) -> bool:
        """Whether that is a name on the hub."""


def model_card(
    workspace: Workspace,
    view: RunView,
    *,
    step: int,
    base: Base,
    identity: Mapping[str, str],
    labels: dict[str, tuple[int, ...]],
    front: list[int],
    example: str,
    merged: bool,
) -> str:
    """The text of `README.md` for the checkpoint of the run `view` at `step`.

    `identity` has the digests of the base model by what they are of, `labels` the labels' tokens by name; `example`
    is a prompt of the training, `front` the tokens that are fed before it.
    """
    evaluations = _evaluations(view, step)
    text: str = _template().render(
        head=_head(view, base, evaluations, merged=merged),
        title=f"{view.name}, step {step}",
        merged=merged,
        base=base,
        labels=labels,
        front=front,
        example=example,
        data=_data(workspace, view),
        metrics=[_row(*found) for found in evaluations],
        training=_training(workspace, view, step, identity),
    )
    return text


def _evaluations(view: RunView, step: int) -> list[tuple[str, str, Metrics]]:
    """Subset, classifier and metrics of what this checkpoint, and the trees beside it, were evaluated on."""
    found = []
    checkpoint = next((one for one in view.checkpoints if one.step == step), None)
    if checkpoint and checkpoint.metrics:
        found.append(("validation", "this model", checkpoint.metrics))
        found += _trees(view, "validation")
    if view.test and view.test.step == step:
        found.append(("test", "this model", view.test.metrics))
        found += _trees(view, "test")
    return found


def _trees(view: RunView, subset: str) -> list[tuple[str, str, Metrics]]:
    return [(subset, trees.name, metrics) for trees, metrics in view.baseline.beside(subset) if metrics]


def _row(subset: str, classifier: str, metrics: Metrics) -> list[str]:
    intervals = [printed_interval(metrics.model_dump(), name) for name in ("accuracy", "auc")]
    return [subset, classifier, f"{metrics.n:,}", *intervals, printed_sic(metrics.model_dump())]


def _head(view: RunView, base: Base, evaluations: list[tuple[str, str, Metrics]], *, merged: bool) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    dataset = str((view.manifest or {}).get("dataset", view.split))
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=subset,
            metric_type=name,
            metric_value=round(value, 6),
        )
        for subset, classifier, metrics in evaluations
        if classifier == "this model"
        for name, value in (("accuracy", metrics.accuracy), ("auc", metrics.auc))
        if value is not None
    ]
    tags = ["high-energy-physics", "lhc-olympics", "lhcq", *([] if merged else ["lora"])]
    if base.on_hub and not merged:
        tags.append(f"base_model:adapter:{base.name}")
    data = ModelCardData(
        base_model=base.name if base.on_hub else None,
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-generation",
        tags=tags,
        model_name=view.name,
        eval_results=results or None,
        **({"base_model_relation": "merge" if merged else "adapter"} if base.on_hub else {}),
    )
    return str(data.to_yaml()).strip()


def _data(workspace: Workspace, view: RunView) -> list[tuple[str, str]]:
    manifest = view.manifest or {}
    template = manifest.get("template") or {}
    counts = manifest.get("counts") or {}
    lines = [
        (
            "Dataset",
            f"{manifest.get('dataset')}, source sha256 {manifest.get('source_sha256')}" if manifest else "",
        ),
        ("Jets", _jets(workspace, manifest)),
        (
            "Template",
            f"{template['name']} v{template['version']}, made of {', '.join(template['columns'])} "
            f"(sha256 {template['sha256']})"
            if template
            else "",
        ),
        (
            "Copies",
            f"each training event {copies} times, its numbers moved a little at random each time"
            if (copies := (manifest.get("config") or {}).get("copies", 1)) > 1
            else "",
        ),
        ("Labels", "the prompt is followed by ` signal` or ` background`"),
        *(
            (
                f"Events of the {subset} subset",
                f"{count['signal']:,} signal, {count['background']:,} background",
            )
            for subset, count in counts.items()
        ),
    ]
    return [(name, text) for name, text in lines if text]


def _jets(workspace: Workspace, manifest: dict[str, Any]) -> str:
    """How the split's dataset was clustered; empty where it is gone or is another by now."""
    try:
        dataset = read_json(workspace.dataset(manifest["dataset"]) / MANIFEST)
    except (FileNotFoundError, KeyError):
        return ""
    same = events_sha256(dataset) == manifest.get("dataset_sha256")
    return said_config(dataset.get("config")) if same else ""


def _training(
    workspace: Workspace, view: RunView, step: int, identity: Mapping[str, str]
) -> list[tuple[str, str]]:
    manifest = read_json(workspace.checkpoint(view.name, step) / MANIFEST)
    versions = manifest.get("versions") or {}
    return [
        ("Steps", f"{step} of {view.total_steps}"),
        ("Base model", ", ".join(f"{part} sha256 {sha256}" for part, sha256 in sorted(identity.items()))),
        *(
            [("Logits", "the model's own, since they are capped or scaled")]
            if manifest.get("logits") == "own"
            else []
        ),
        *((name, str(value)) for name, value in sorted(view.config.items()) if value is not None),
        (
            "Versions",
            ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "not recorded",
        ),
    ]


@cache
def _template() -> Any:
    # Markdown, not HTML: what is filled in are names that lhcq checked, numbers, and JSON strings.
    environment = Environment(
        loader=PackageLoader("lhcq.report", "."),
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md.j2")
