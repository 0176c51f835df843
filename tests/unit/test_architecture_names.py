"""The pages name what there is: modules, their functions and fields, rooms and layers, files, commands of make."""

import ast
import re

import pytest

import lhcq
from tasks.jobs.kinds import KINDS
from tests.deployed import ROOT

ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
PAGES = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    *sorted(str(one.relative_to(ROOT)) for one in (ROOT / "docs").rglob("*.md")),
)
NAMES_ON_THE_WIRE = ("docs/api.md", "docs/glossary.md", "docs/monitoring.md")
"""Pages with names of columns, of tasks and in traces."""
ROOMS = {path.stem for path in (ROOT / "lhcq").iterdir() if path.suffix == ".py" or path.is_dir()}
FILES = ("parquet", "json", "jsonl", "h5", "html", "md", "py", "toml", "txt", "yml")


def names(text: str) -> set[str]:
    """Dotted names of lhcq's own that stand in backticks."""
    words = re.findall(r"`([A-Za-z_][\w]*(?:\.\w+)+)`", text)
    return {
        word
        for word in words
        if word.partition(".")[0] in {"lhcq", "tasks", *ROOMS} and word.rpartition(".")[2] not in FILES
    }


def there_is(name: str) -> bool:
    """Whether a module of that name, or something of that name in one, exists; no module of it is imported."""
    steps = name.split(".")
    steps = steps if steps[0] in ("lhcq", "tasks") else ["lhcq", *steps]
    place = ROOT
    while steps and (place / steps[0]).is_dir():
        place /= steps.pop(0)
    in_a_module = bool(steps) and (place / f"{steps[0]}.py").is_file()
    source = place / (f"{steps.pop(0)}.py" if in_a_module else "__init__.py")
    if source == ROOT / "lhcq/__init__.py" and steps and steps[0] in lhcq.__all__:
        return len(steps) == 1
    return source.is_file() and _is_defined(ast.parse(source.read_text("utf-8")).body, steps)


def _is_defined(body: list[ast.stmt], steps: list[str]) -> bool:
    if not steps:
        return True
    first, *rest = steps
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == first:
            return _is_defined(node.body, rest)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(one, ast.Name) and one.id == first for one in targets):
            return not rest
    return False


def section(title: str) -> str:
    """A chapter of ARCHITECTURE.md."""
    _, _, rest = ARCHITECTURE.partition(f"\n## {title}\n")
    assert rest, f"ARCHITECTURE.md has no chapter {title}"
    return rest.partition("\n## ")[0]


PROMISES = [
    line for line in section("Promises, and where each is kept").splitlines() if line.startswith("| ")
][2:]


@pytest.mark.parametrize("line", PROMISES, ids=lambda line: line[2:42])
def test_where_a_promise_is_kept_can_be_found(line: str) -> None:
    where = line.rstrip(" |").rpartition(" | ")[2]
    assert "`" in where
    assert [name for name in names(line) if not there_is(name)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page not in NAMES_ON_THE_WIRE])
def test_every_name_of_a_page_exists(page: str) -> None:
    assert [name for name in sorted(names((ROOT / page).read_text("utf-8"))) if not there_is(name)] == []


@pytest.mark.parametrize(
    "name", ["tasks.jobs.pending", "lhcq.storage.no_such", "jets.plan.Chunk.no_such", "lhcq.nothing"]
)
def test_a_name_that_is_nothing_is_found_out(name: str) -> None:
    assert not there_is(name)


def test_the_rooms_of_tasks_are_told_in_the_order_that_is_enforced() -> None:
    contract = re.search(
        r'name = "rooms of tasks.*?layers = \[(.*?)\]', (ROOT / "pyproject.toml").read_text(), re.S
    )
    assert contract is not None
    enforced = re.findall(r'"(tasks\.\w+)"', contract[1])
    told = re.findall(r"(?m)^\| `(tasks\.\w+)` \|", section("Layers"))
    assert told == enforced
    there = {f"tasks.{path.stem}" for path in (ROOT / "tasks").glob("[!_]*") if path.suffix in ("", ".py")}
    assert set(told) == there


def test_the_layers_are_told_in_the_order_that_is_enforced() -> None:
    contract = re.search(
        r'name = "layers: .*?layers = \[(.*?)\]', (ROOT / "pyproject.toml").read_text(), re.S
    )
    assert contract is not None
    enforced = [line.split(" | ") for line in re.findall(r'"([\w. |]+)"', contract[1])]
    chain = re.search(r"`(lhcq\.cli -> .*?)`", section("Layers"), re.S)
    assert chain is not None
    told = [re.split(r",\s+", layer) for layer in re.split(r"\s+->\s+", chain[1])]
    stages = next(layer for layer in enforced if "lhcq.events" in layer)
    assert [sorted(stages) if layer == ["stages"] else sorted(layer) for layer in told] == [
        sorted(layer) for layer in enforced
    ]


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[\w-]+)?\)", (ROOT / page).read_text("utf-8"))
    here = (ROOT / page).parent
    assert [link for link in links if "://" not in link and not (here / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_asks_of_make_it_can_do(page: str) -> None:
    targets = set(re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text()))
    asked = re.findall(r"(?m)(?:^    |`)make ([a-z][\w-]*)", (ROOT / page).read_text("utf-8"))
    assert set(asked) <= targets


def test_files_that_contributing_names_exist() -> None:
    paths = re.findall(
        r"`((?:lhcq|tasks|tests|docs)/[\w./]+)`", (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    )
    yours = [path for path in paths if "square" in path]
    assert len(yours) == 4
    assert [path for path in paths if path not in yours and not (ROOT / path).exists()] == []


def test_the_tasks_that_the_glossary_keeps_are_those_that_there_are() -> None:
    said = set(re.findall(r"`(lhcq\.\w+_part)`", (ROOT / "docs/glossary.md").read_text("utf-8")))
    assert said == {task for kind in KINDS.values() for task in kind.queues if task.endswith("_part")}


def test_the_first_screen_is_the_first_example() -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert (ROOT / "examples/01_events_to_auc.py").read_text("utf-8") in code
