"""The model card of an exported checkpoint, as the hub and PEFT expect it: a YAML head, and a program to use it."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined

from lhcq.config import ModelFormat
from lhcq.records.events import events_sha256
from lhcq.records.letters import split_prompt
from lhcq.records.metrics import Metrics
from lhcq.report.dataset_page import said_config
from lhcq.report.table import printed_interval, printed_metric, printed_sic, printed_template
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

    @property
    def licence(self) -> str | None:
        """As the hub abbreviates it; None where it is not known."""


def card_program(
    model_format: ModelFormat,
    *,
    base: str,
    revision: str | None,
    here: str,
    dtype: str,
    writer: str,
    prompt: str,
    values: Mapping[str, float] | None,
    labels: Mapping[str, Sequence[int]],
    front: Sequence[int],
    ends: Sequence[int],
) -> str:
    """The Python program of a card: `write_prompt`, `p_signal` and `answer`, and an example when it is run.

    The adapter in the directory `here` is loaded onto `base`, or `here` alone, to compute in `dtype`. `writer` is the
    source of `write_prompt`, `prompt` an example and `values` its numbers where it consists of such. `labels` has the
    labels' tokens by name, `front` those that are fed before a prompt, `ends` those that an answer ends with.
    """
    text: str = _template("program.py.j2").render(
        model_format=model_format,
        base=base,
        revision=f", revision={revision!r}" if revision else "",
        here=here,
        dtype=dtype,
        writer=writer,
        prompt=prompt,
        values=", ".join(f"{name}={value!r}" for name, value in (values or {}).items()),
        labels=labels,
        front=list(front),
        ends=list(ends),
        longest=max(map(len, labels.values())) + 1,
    )
    return text.strip()


def model_card(
    workspace: Workspace,
    view: RunView,
    *,
    step: int,
    model_format: ModelFormat,
    base: Base,
    identity: Mapping[str, str],
    numbers: Sequence[tuple[str, float, str, str]],
    letters: Sequence[tuple[str, str, str]],
    example: str,
    program: str,
    dtype: str,
    tried: tuple[int, float, int, int],
) -> str:
    """The text of `README.md` for the checkpoint of the run `view` at `step`, exported as `model_format`.

    `identity` has the digests of the base model by what they are of; `numbers` are those of a prompt, each with its
    feature, what one more of it is, the unit of that and its meaning, and `letters` those of each constituent behind
    them, each with its name, its bins and its meaning; `example` is a prompt of the training. `tried`
    is what came of `program`, computing in `dtype`: on how many events, how far logits of P(signal) were from the
    run's at most, how many of them were asked in words, and for how many of these the answer was a label.
    """
    from huggingface_hub import ModelCard

    evaluations = _evaluations(view, step)
    n_tried, apart, n_asked, in_words = tried
    body: str = _template("card.md.j2").render(
        title=f"{view.name}, step {step}",
        model_format=model_format,
        base=base,
        program=program,
        dtype=dtype,
        n_tried=n_tried,
        apart=f"{apart:.1g}",
        n_asked=n_asked,
        in_words=in_words,
        numbers=_explained(numbers, split_prompt(example)[0] if letters else example),
        letters=_explained_letters(letters, example),
        most=(view.manifest or {}).get("template", {}).get("constituents"),
        data=_data(workspace, view),
        metrics=[_row(*found) for found in evaluations],
        training=_training(workspace, view, step, identity),
    )
    head = _head(view, base, evaluations, model_format=model_format, speaks=in_words == n_asked)
    return str(ModelCard(f"---\n{head}\n---\n\n{body}"))


def _explained(numbers: Sequence[tuple[str, float, str, str]], example: str) -> list[list[str]]:
    """A row a number: what stands in the example, its name, unit and meaning."""
    counted = example.removesuffix(":").split()
    shown = counted if len(counted) == len(numbers) else [""] * len(numbers)
    return [
        [one, f"`{feature}`", f"{step:g} {unit}".strip(), meaning]
        for one, (feature, step, unit, meaning) in zip(shown, numbers, strict=True)
    ]


def _explained_letters(letters: Sequence[tuple[str, str, str]], example: str) -> list[list[str]]:
    """A row a letter of a constituent: what the heavier jet's hardest has in the example, and the rest."""
    _, jets = split_prompt(example)
    shown = jets[0][: len(letters)] if jets and jets[0] else [""] * len(letters)
    return [
        [one, f"`{name}`", bins, meaning] for one, (name, bins, meaning) in zip(shown, letters, strict=True)
    ]


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
    known = metrics.model_dump()
    intervals = [printed_interval(known, name) for name in ("accuracy", "auc")]
    in_words = [printed_metric(known, name) for name in ("generated_accuracy", "unknown")]
    return [subset, classifier, f"{metrics.n:,}", *intervals, printed_sic(known), *in_words]


def _head(
    view: RunView,
    base: Base,
    evaluations: list[tuple[str, str, Metrics]],
    *,
    model_format: ModelFormat,
    speaks: bool,
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    dataset = str((view.manifest or {}).get("dataset", view.split))
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=dataset,
            dataset_name=f"{dataset} (events as those of the LHC Olympics 2020)",
            dataset_split=subset,
            metric_type=metric,
            metric_name=name,
            metric_value=round(value, 6),
        )
        for subset, classifier, metrics in evaluations
        if classifier == "this model"
        for metric, name, value in (
            ("accuracy", "accuracy", metrics.accuracy),
            ("roc_auc", "AUC", metrics.auc),
        )
        if value is not None
    ]
    tags = ["high-energy-physics", "lhc-olympics", "lhcq"]
    relation = {"adapter": "adapter", "merged": "merge", "classifier": "finetune"}[model_format]
    if model_format == "adapter":
        tags += ["lora", *([f"base_model:adapter:{base.name}"] if base.on_hub else [])]
    data = ModelCardData(
        base_model=base.name if base.on_hub else None,
        library_name="peft" if model_format == "adapter" else "transformers",
        pipeline_tag="text-generation" if speaks and model_format != "classifier" else "text-classification",
        license=base.licence or "other",
        license_name=None if base.licence else "as-the-base-model",
        license_link=f"https://huggingface.co/{base.name}" if base.on_hub and not base.licence else None,
        datasets=[dataset],
        metrics=["accuracy", "roc_auc"],
        tags=tags,
        model_name=view.name,
        eval_results=results or None,
        **({"base_model_relation": relation} if base.on_hub else {}),
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
            f"{printed_template(template)}, made of {', '.join(template['columns'])} "
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
def _template(name: str) -> Any:
    # Markdown and Python, not HTML: what is filled in are names that lhcq checked, numbers, and JSON strings.
    environment = Environment(
        loader=PackageLoader("lhcq.report", "."),
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
