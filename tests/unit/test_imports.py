"""Starting is quick and needs little: nothing heavy is loaded before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from lhcq.cli.main import VERBS
from tests.inside import ended

HEAVY = (
    "celery",
    "torch",
    "transformers",
    "redis",
    "pyarrow",
    "h5py",
    "fastjet",
    "sklearn",
    "matplotlib",
    "numpy",
)
WAITING = ("generate", "cluster", "prepare", "train", "resume", "predict", "search", "retry")
ANSWERING = [verb for verb in VERBS if verb not in ("up", "worker", "workers", "serve", "metrics", "flower")]


def loaded_by(program: str, cwd: Path) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `program`."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules, file=sys.stderr)"],
        cwd=cwd,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


CLI = "sys.argv = ['lhcq', {!r}]\nfrom lhcq.cli.main import main\ntry:\n main()\nexcept SystemExit:\n pass"


@pytest.mark.parametrize(
    "program",
    [
        "import lhcq",
        CLI.format("--version"),
        CLI.format("--help"),
        *(f"import lhcq.{stage}" for stage in ("events", "jets", "prompts", "model", "evaluate", "report")),
    ],
)
def test_a_light_start_loads_nothing_heavy(program: str, tmp_path: Path) -> None:
    loaded = loaded_by(program, tmp_path)
    assert "lhcq" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_a_worker_loads_no_torch_and_no_stage_before_its_first_task(tmp_path: Path) -> None:
    loaded = loaded_by("import tasks.app\ntasks.app.app.loader.import_default_modules()", tmp_path)
    assert "celery" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "peft", "fastjet", "sklearn", "matplotlib"})


def test_what_is_said_of_a_run_loads_nothing_that_draws(tmp_path: Path) -> None:
    program = "import lhcq.cli.runs, lhcq.report.collect, lhcq.report.table, lhcq.report.verdict"
    assert loaded_by(program, tmp_path).isdisjoint({"matplotlib", "mplhep", "sklearn", "scipy"})


def test_without_a_gpu_the_default_model_is_known_without_torch(tmp_path: Path) -> None:
    program = (
        "import os\nos.environ['PATH'] = ''\nfrom lhcq.model.sources import default_model\ndefault_model()"
    )
    assert "torch" not in loaded_by(program, tmp_path)


def test_finding_jets_loads_no_extension_of_numba_that_nobody_uses(tmp_path: Path) -> None:
    loaded = loaded_by("from lhcq.jets.clustering import compile_kernels\ncompile_kernels()", tmp_path)
    assert "numba" in loaded
    assert loaded.isdisjoint({"awkward", "vector", "sympy"})


def test_loops_over_awkward_arrays_and_vectors_still_compile_beside_ours(tmp_path: Path) -> None:
    program = """
import lhcq.events.soundness  # whose loop is numba's first
import awkward, numba
total = numba.njit(lambda arrays: arrays[1][0])
print(total(awkward.Array([[1.0], [2.0, 3.0]])))
import vector
print(numba.njit(lambda one: one.pt)(vector.obj(px=3.0, py=4.0)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["2.0", "5.0"]


def test_every_task_is_registered_under_its_own_name(tmp_path: Path) -> None:
    program = (
        "import tasks.app\ntasks.app.app.loader.import_default_modules()\n"
        "print(*sorted(n for n in tasks.app.app.tasks if n.startswith('lhcq.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stdout.split() == [
        "lhcq.baseline",
        "lhcq.cluster_merge",
        "lhcq.cluster_part",
        "lhcq.generate_merge",
        "lhcq.generate_part",
        "lhcq.predict_merge",
        "lhcq.predict_part",
        "lhcq.predict_select",
        "lhcq.prepare",
        "lhcq.scan_merge",
        "lhcq.scan_part",
        "lhcq.scan_train",
        "lhcq.search_merge",
        "lhcq.search_part",
        "lhcq.search_train",
        "lhcq.test",
        "lhcq.train_segment",
        "lhcq.validate",
    ]


def test_the_version_is_the_packages() -> None:
    import lhcq

    assert ended("--version").stdout == f"lhcq, version {lhcq.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_answers_in_json(verb: str) -> None:
    text = ended(verb, "--help").stdout
    assert text.startswith("Usage: ")
    assert len(text.splitlines()) > 4
    assert ("--json" in text) == (verb in ANSWERING)
    assert ("--wait / --detach" in text) == (verb in WAITING)


def test_the_python_interface_loads_no_queue_and_no_torch_before_it_is_used(tmp_path: Path) -> None:
    heavy = {"celery", "redis", "torch", "transformers", "fastjet", "awkward", "hist", "sklearn"}
    assert loaded_by("import lhcq", tmp_path).isdisjoint({*heavy, "numpy", "pydantic"})
    assert loaded_by("import lhcq\nlhcq.cluster, lhcq.load, lhcq.submit", tmp_path).isdisjoint(heavy)


def test_a_name_that_the_python_interface_lacks_is_no_attribute() -> None:
    import lhcq

    assert set(lhcq.__all__) <= set(dir(lhcq))
    with pytest.raises(AttributeError, match="no attribute 'clusters'"):
        _ = lhcq.clusters
