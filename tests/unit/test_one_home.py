"""Each thing on disk has one home: no module but its owner names its file, formats a step, or lists the classes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lhcq
import tasks

ROOT = Path(lhcq.__file__).parent.parent

OWNERS = {
    "events.parquet": {"lhcq/records/events.py"},
    "duplicates.parquet": {"lhcq/records/duplicates.py"},
    "scores.parquet": {
        "lhcq/records/validations.py",
        "lhcq/records/predictions.py",
        "lhcq/records/searches.py",
    },
    "figures.json": {"lhcq/records/validations.py"},
    "report.txt": {"lhcq/records/validations.py"},
    "reference.parquet": {"lhcq/records/predictions.py"},
    "summary.json": {"lhcq/records/predictions.py"},
    "report.html": {
        "lhcq/workspace.py",
        "lhcq/records/predictions.py",
        "lhcq/records/searches.py",
        "lhcq/records/scans.py",
    },
    "scan.json": {"lhcq/records/scans.py"},
    "search.json": {"lhcq/records/searches.py"},
    "pseudo.parquet": {"lhcq/records/searches.py"},
    "manifest.json": {"lhcq/storage.py"},
    "adapter_model.safetensors": {"lhcq/records/checkpoints.py"},
    "adapter_config.json": {"lhcq/records/checkpoints.py"},
    "events.jsonl": {"lhcq/workspace.py"},
    "job.json": {"lhcq/records/jobs.py"},
    "outcome.json": {"lhcq/records/jobs.py"},
    "stopped.json": {"lhcq/records/failures.py"},
    "wish.json": {"lhcq/workspace.py"},
    "calibrated.json": {"lhcq/workspace.py"},
}
"""Names of files, by who may name them."""

DIRECTORIES = {
    *(
        "datasets",
        "splits",
        "baselines",
        "runs",
        "predictions",
        "searches",
        "scans",
        "models",
        "exports",
        "plots",
        "logs",
        "broker",
    ),
    *("checkpoints", "validations", "judgements", "alarms", "answers", "tags", "test", "calibration"),
}
"""Names of directories, which stand in paths of `lhcq.workspace` alone."""

SUBSETS = {"train", "validation", "calibration", "test"}
TABLES = {"lhcq/records/subsets.py", "lhcq/records/validations.py"}
"""Who names a file after a subset."""

MODULES = sorted(
    str(path.relative_to(ROOT))
    for package in (lhcq, tasks)
    for path in Path(package.__file__).parent.rglob("*.py")
)


def second_homes(source: str, module: str) -> list[str]:
    """Where `source`, the text of `module`, names, formats or lists what is another module's."""
    tree = ast.parse(source)
    texts = _documentation(tree)
    return sorted(
        f"{module}:{node.lineno}: {fault}"  # type: ignore[attr-defined]
        for node in ast.walk(tree)
        if id(node) not in texts
        for fault in _faults(node, module)
    )


def _documentation(tree: ast.Module) -> set[int]:
    """Strings that stand for themselves: what is written for people."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _faults(node: ast.AST, module: str) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from (
            f"names {name}" for name, owners in OWNERS.items() if name in node.value and module not in owners
        )
        if node.value in {f"{subset}.parquet" for subset in SUBSETS} and module not in TABLES:
            yield "names the file of a subset"
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and module != "lhcq/workspace.py":
        if isinstance(node.right, ast.Constant) and node.right.value in DIRECTORIES:
            yield f"names {node.right.value}/"
    elif isinstance(node, ast.JoinedStr):
        yield from _faults_of_text(node, module)
    elif isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict) and module != "lhcq/records/labels.py":
        parts = [*node.keys, *node.values] if isinstance(node, ast.Dict) else node.elts
        if {"signal", "background"} <= {one.value for one in parts if isinstance(one, ast.Constant)}:
            yield "lists the classes"


def _faults_of_text(node: ast.JoinedStr, module: str) -> Iterator[str]:
    """An f-string that formats a step, or names a file after a subset."""
    for one in node.values:
        if isinstance(one, ast.FormattedValue) and one.format_spec is not None:
            spec = ast.unparse(one.format_spec)
            if "08d" in spec and module != "lhcq/workspace.py":
                yield "formats a step"
    ends = node.values[-1]
    after_a_value = len(node.values) == 2 and isinstance(node.values[0], ast.FormattedValue)
    if after_a_value and isinstance(ends, ast.Constant) and ends.value == ".parquet" and module not in TABLES:
        yield "names a file after a subset"


@pytest.mark.parametrize("module", MODULES)
def test_no_module_names_what_another_owns(module: str) -> None:
    assert second_homes((ROOT / module).read_text("utf-8"), module) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('pq.read_table(directory / "events.parquet")', "names events.parquet"),
        ('sha256 = manifest["files"]["events.parquet"]["sha256"]', "names events.parquet"),
        ('lines = (workspace.run(run) / "events.jsonl").open()', "names events.jsonl"),
        ('wish = read_json(run_dir / "wish.json")["wish"]', "names wish.json"),
        ('path = f"{run}/figures.json"', "names figures.json"),
        ('steps = committed(run_dir / "checkpoints")', "names checkpoints/"),
        ('alarms = sorted((directory / "alarms").glob("*.json"))', "names alarms/"),
        ('path = directory / f"{step:08d}"', "formats a step"),
        ('table = pq.read_table(split / f"{part}.parquet")', "names a file after a subset"),
        ('table = pq.read_table(split / "calibration.parquet")', "names the file of a subset"),
        ('NAMES = ("background", "signal")', "lists the classes"),
        ('CLASSES = {0: "background", 1: "signal"}', "lists the classes"),
    ],
)
def test_a_second_home_is_noticed(source: str, fault: str) -> None:
    assert second_homes(source, "lhcq/report/other.py") == [f"lhcq/report/other.py:1: {fault}"]


def test_what_is_written_for_people_may_name_a_file() -> None:
    assert second_homes('"""What `events.parquet` holds."""', "lhcq/report/other.py") == []


def test_every_owner_is_a_module_that_names_what_it_owns() -> None:
    for name, owners in OWNERS.items():
        for owner in owners:
            assert name in (ROOT / owner).read_text("utf-8")
