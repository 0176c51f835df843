"""What the workspace holds: listed with size and owner, and removed by name with all that belongs to it."""

import getpass
import json
from pathlib import Path
from typing import Any

import pytest
from click import Context
from click.testing import CliRunner

from lhcq.cli.main import VERBS, cli
from lhcq.cli.parameters import NameOf
from lhcq.cli.session import clear_way
from lhcq.errors import BadInput, NameTaken, NotThere
from lhcq.records.jobs import MADE, OUTCOME, Job, end_job, find_job
from lhcq.storage import MANIFEST, REMOVED, sha256_of, write_json
from lhcq.workspace import Workspace
from tasks.jobs.holdings import dependents_of, find_holding, list_holdings, remove_holding
from tasks.jobs.kinds import chunk_path, result_of
from tasks.jobs.store import create_job
from tests.specs import job_of


@pytest.fixture(autouse=True)
def named(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)


def made(place: Workspace, kind: str, name: str = "made", **spec: Any) -> Job:
    """A job that is done, with its result."""
    job = create_job(place, job_of(kind, name, **spec))
    result = result_of(place, job)
    result.mkdir(parents=True, exist_ok=True)
    (result / MANIFEST).write_text("{}")
    (result / "rows").write_bytes(b"x" * 1000)
    end_job(place, job, "done", "made")
    return job


@pytest.fixture
def chain(place: Workspace) -> Workspace:
    """A dataset, a split of it with its baseline, and a run on that."""
    made(place, "cluster", "lhco")
    made(place, "prepare", "balanced", dataset="lhco")
    place.baseline("balanced").mkdir(parents=True)
    made(place, "train", "first", split="balanced", parts=0)
    return place


def told(*words: str) -> str:
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: str) -> str:
    result = CliRunner().invoke(cli, words)
    assert isinstance(result.exception, BadInput | NotThere), result.output
    return str(result.exception)


def test_everything_is_listed_with_its_size_its_owner_and_what_it_was_made_of(chain: Workspace) -> None:
    (chain.model("smollm2")).mkdir(parents=True)
    (chain.model("smollm2") / "weights").write_bytes(b"w" * 5000)
    rows = {(row["what"], row["name"]): row for row in json.loads(told("ls", "--json"))["holdings"]}
    assert list(rows) == [
        ("dataset", "lhco"),
        ("split", "balanced"),
        ("run", "first"),
        ("model", "smollm2"),
    ]
    assert rows["model", "smollm2"]["bytes"] == 5000
    dataset = rows["dataset", "lhco"]
    records = sum(path.stat().st_size for path in chain.job("cluster", "lhco").rglob("*") if path.is_file())
    assert dataset["bytes"] == 1002 + records
    assert (dataset["state"], dataset["owner"]) == ("done", getpass.getuser())
    assert rows["split", "balanced"]["made_of"] == ["dataset lhco"]
    assert rows["run", "first"]["made_of"] == ["split balanced", "model smollm2"]
    assert str(chain.baseline("balanced")) in rows["split", "balanced"]["paths"]
    text = told("ls")
    assert "lhco" in text
    assert "5.0 kB" in text
    assert told("ls", "--kind", "model").count("\n") < text.count("\n")


def test_an_empty_workspace_is_listed_and_not_made(place: Workspace) -> None:
    assert told("ls") == f"nothing in {place.root}\n"
    for words in (("prune", "--dry-run"), ("prune",)):
        assert told(*words) == "nothing to remove\n"
    assert not place.root.exists()


def test_a_dataset_goes_with_the_job_that_made_it(place: Workspace) -> None:
    made(place, "cluster", "lhco")
    assert told("rm", "lhco").startswith("removed dataset lhco (")
    assert find_job(place, "cluster", "lhco") is None
    assert not place.dataset("lhco").exists()
    assert not place.job("cluster", "lhco").exists()
    create_job(place, job_of("cluster", "lhco", radius=0.4))  # the name is free


def test_a_split_goes_with_its_baseline(chain: Workspace) -> None:
    told("rm", "first", "balanced")
    assert not chain.split("balanced").exists()
    assert not chain.baseline("balanced").exists()
    assert chain.dataset("lhco").exists()


def test_what_something_was_made_of_is_refused_by_name_and_nothing_is_removed(chain: Workspace) -> None:
    line = refused("rm", "lhco")
    assert line == (
        "dataset lhco: split balanced was made of it. Remove that first, or it alone by "
        "`lhcq rm lhco --kind dataset --force`."
    )
    assert "run first was made of it" in refused("rm", "lhco", "balanced")
    assert chain.dataset("lhco").exists()
    assert chain.split("balanced").exists()
    told("rm", "lhco", "balanced", "first")  # in whatever order
    assert list_holdings(chain) == []


def test_force_removes_it_alone(chain: Workspace) -> None:
    told("rm", "lhco", "--force")
    assert not chain.dataset("lhco").exists()
    assert chain.split("balanced").exists()


def test_what_is_being_made_is_refused_unless_it_is_forced(place: Workspace) -> None:
    job = create_job(place, job_of("cluster", "lhco"))
    chunk = chunk_path(place, job, 0)
    chunk.parent.mkdir(parents=True)
    chunk.touch()
    assert "cluster lhco has not ended. End it first by `lhcq cancel lhco --kind cluster`" in refused(
        "rm", "lhco"
    )
    assert chunk.exists()
    told("rm", "lhco", "--force")
    assert list_holdings(place) == []
    assert not chunk.exists()


def test_what_a_new_job_of_a_name_makes_while_the_old_ones_workers_are_awaited_stays(
    place: Workspace,
) -> None:
    made(place, "cluster", "lhco")
    (place.job("cluster", "lhco") / OUTCOME).unlink()  # its dataset stands, and it has not ended

    def ask_again(_: Job) -> None:
        assert not place.dataset("lhco").exists()  # so the name is free at once
        made(place, "cluster", "lhco", radius=0.4)

    remove_holding(place, find_holding(place, "lhco"), wait_for_workers=ask_again)
    holding = find_holding(place, "lhco")
    assert holding.job is not None
    assert holding.state(place) == "done"
    assert (place.dataset("lhco") / "rows").exists()
    assert not list(place.root.rglob(f".*{REMOVED}"))


def test_what_workers_of_a_removed_job_left_while_they_were_awaited_goes_too(place: Workspace) -> None:
    job = create_job(place, job_of("cluster", "lhco"))

    def end_what_was_begun(_: Job) -> None:
        place.dataset("lhco").mkdir(parents=True)
        chunk = chunk_path(place, job, 0)
        chunk.parent.mkdir(parents=True)
        chunk.touch()

    remove_holding(place, find_holding(place, "lhco"), wait_for_workers=end_what_was_begun)
    assert list_holdings(place) == []
    assert not place.dataset("lhco").exists()
    assert not place.job("cluster", "lhco").exists()


def test_a_name_of_several_things_asks_which(chain: Workspace) -> None:
    made(chain, "prepare", "lhco", dataset="other")
    assert "'lhco' names 2 things. Choose by --kind dataset|split" in refused("rm", "lhco")
    assert "no run is called 'lhco'" in refused("rm", "lhco", "--kind", "run")
    told("rm", "lhco", "--kind", "split")
    assert chain.dataset("lhco").exists()


def test_what_no_job_made_is_listed_and_removed(place: Workspace) -> None:
    place.dataset("imported").mkdir(parents=True)
    assert find_holding(place, "imported").state(place) == ""
    told("rm", "imported")
    assert not place.dataset("imported").exists()


@pytest.mark.parametrize("changed", [False, True])
def test_a_generated_file_is_removed_only_while_it_is_what_its_job_made(
    place: Workspace, tmp_path: Path, changed: bool
) -> None:
    out = tmp_path / "events.h5"
    job = create_job(place, job_of("generate", "events-1", out=str(out)))
    out.write_text("generated")
    write_json(place.job("generate", "events-1") / MADE, {"sha256": sha256_of(out)})
    end_job(place, job, "done", "made")
    if changed:
        out.write_text("a person's own")
    text = told("rm", "events-1")
    assert out.exists() == changed
    assert (f"{out} stays" in text) == changed
    assert find_job(place, "generate", "events-1") is None


def test_a_dataset_depends_on_the_file_that_it_was_made_of(place: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "events.h5"
    out.write_text("generated")
    create_job(place, job_of("cluster", "lhco", terms={"source": str(out)}))
    # Asked for before the file stood.
    write_json(
        place.job("generate", "events-1") / "job.json",
        job_of("generate", "events-1", out=str(out)).model_dump(),
    )
    events = find_holding(place, "events-1")
    assert [one.title for one in dependents_of(place, events)] == ["dataset lhco"]


def test_a_job_whose_record_is_damaged_can_be_cleared_away(place: Workspace) -> None:
    create_job(place, job_of("cluster", "lhco"))
    (place.job("cluster", "lhco") / "job.json").write_text("")
    (row,) = json.loads(told("ls", "--json"))["holdings"]
    assert (row["state"], row["name"]) == ("damaged", "lhco")
    assert "not readable as JSON" in row["trouble"]
    told("rm", "lhco")
    assert list_holdings(place) == []


def test_a_removal_that_was_cut_off_leaves_nothing_that_is_listed(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(place, "cluster", "lhco")
    monkeypatch.setattr("lhcq.storage.shutil.rmtree", lambda *_, **__: None)  # killed in the middle
    told("rm", "lhco")
    assert list_holdings(place) == []
    monkeypatch.undo()
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    assert len(json.loads(told("prune", "--json"))["leftovers"]) == 2
    assert [path for path in place.root.rglob("*") if "removed" in path.name] == []


def test_force_makes_way_for_what_is_made_anew_and_not_where_something_depends_on_it(
    chain: Workspace,
) -> None:
    with pytest.raises(BadInput, match="split balanced was made of it"):
        clear_way(chain, "cluster", "lhco", chain.dataset("lhco"))
    with pytest.raises(BadInput, match="run first was made of it"):
        clear_way(chain, "prepare", "balanced", chain.split("balanced"))
    assert chain.dataset("lhco").exists()
    clear_way(chain, "train", "first", chain.run("first"))
    assert not chain.run("first").exists()
    clear_way(chain, "train", "first", chain.run("first"))  # nothing is in the way any more
    create_job(chain, job_of("train", "first", parts=0))
    with pytest.raises(BadInput, match="has not ended"):
        clear_way(chain, "train", "first", chain.run("first"))


def test_force_replaces_a_generated_file_of_another_request_and_no_file_of_a_person_s(
    place: Workspace, tmp_path: Path
) -> None:
    out = tmp_path / "events.h5"
    job = create_job(place, job_of("generate", "events-1", out=str(out)))
    out.write_text("generated")
    write_json(place.job("generate", "events-1") / MADE, {"sha256": sha256_of(out)})
    end_job(place, job, "done", "made")
    other = job_of("generate", "events-2", out=str(out), seed=2)
    with pytest.raises(NameTaken, match=r"Choose another file, or `lhcq rm events-1` first\."):
        create_job(place, other)
    clear_way(place, "generate", "events-2", out)
    assert not out.exists()
    create_job(place, other)
    out.write_text("a person's")
    told("cancel", "events-2")
    with pytest.raises(NameTaken, match="Choose another file"):
        clear_way(place, "generate", "events-2", out)
    told("rm", "events-2")
    clear_way(place, "generate", "events-2", out)
    with pytest.raises(NameTaken, match=r"exists already\. Choose another file\.$"):
        create_job(place, other)
    assert out.read_text() == "a person's"


def test_plot_says_what_has_a_name_that_is_no_dataset(chain: Workspace) -> None:
    made(chain, "search", "odd", parts=5)
    for name, what in (("first", "run"), ("odd", "search")):
        assert refused("plot", name) == (
            f"{name}: is a {what}, and no dataset. `lhcq report {name} --kind {what} --figures DIR` writes the "
            "pictures of its page."
        )
    assert refused("plot", "balanced") == (
        "balanced: is a split, and no dataset. `lhcq ls --kind dataset` lists what there is."
    )
    assert "dataset 'nothing' does not exist" in refused("plot", "nothing")
    assert not (chain.root / "plots").exists()


def names_asked_for() -> list[tuple[str, ...]]:
    """Each verb with each name that it takes, each time of another sort of thing: the last word is the wrong one."""
    asked = []
    for verb in VERBS:
        command = cli.get_command(Context(cli), verb)
        before: list[str] = []
        for one in command.params if command else ():
            if not isinstance(one.type, NameOf) or "jobs" in one.type.kinds:
                continue
            option = [one.opts[0]] if one.opts[0].startswith("-") else []
            wrong = "balanced" if {"datasets", "runs"} & {*one.type.kinds} else "lhco"
            asked.append((verb, *before, *option, wrong))
            if not option:
                before.append({"datasets": "lhco", "splits": "balanced"}.get(one.type.kinds[0], "first"))
    return asked


@pytest.mark.parametrize("words", names_asked_for(), ids=" ".join)
def test_every_verb_says_what_a_name_is_of_that_it_cannot_take(
    chain: Workspace, words: tuple[str, ...]
) -> None:
    said = refused(*words)
    what = {"balanced": "split", "lhco": "dataset"}[words[-1]]
    assert said.startswith(f"{words[-1]}: is a {what}, and no ")
    assert "`lhcq " in said


def test_a_name_that_several_things_have_is_the_one_that_the_verb_takes(chain: Workspace) -> None:
    made(chain, "prepare", "lhco", dataset="lhco")
    made(chain, "train", "lhco", split="lhco", parts=0)
    for kinds in ("datasets", "splits", "runs"):
        assert NameOf(kinds).convert("lhco", None, None) == "lhco"
    create_job(chain, job_of("cluster", "coming"))
    assert "dataset 'coming' does not exist" in refused("prepare", "coming", "--split", "soon")
