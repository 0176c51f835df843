"""A few hundred inputs of the fuzzing, and that it would see what it looks for."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lhcq.errors import BadInput
from tests.fuzz import fuzz
from tests.fuzz.fuzz import Target, run_target


def test_a_few_hundred_inputs_find_nothing(tmp_path: Path) -> None:
    """In a process of its own, whose children are forks of little else."""
    stored = tmp_path / "fuzz.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.fuzz", "--seed", "7", "--inputs", "300", "--store", stored],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LHCQ_TEST_DATA": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(stored.read_text())
    assert result["findings"] == 0
    assert result["inputs"] >= 300
    assert {target["name"] for target in result["targets"]} >= {"events", "features", "messages", "workspace"}


def attack(data: str, place: Path) -> None:
    """Do what a reader with a fault does."""
    match data:
        case "refused":
            raise BadInput("no")
        case "bug":
            raise KeyError("oh")
        case "crash":
            os.abort()
        case "hang":
            time.sleep(60)
        case "memory":
            bytearray(fuzz.MEMORY * 2)


@pytest.mark.parametrize(
    ("data", "what"),
    [("bug", "KeyError"), ("crash", "SIGABRT"), ("hang", "more than"), ("memory", "MemoryError")],
)
def test_whatever_is_no_error_of_lhcq_is_found_and_the_next_inputs_are_tried(
    monkeypatch: pytest.MonkeyPatch, data: str, what: str
) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 0.5)
    inputs = ["read", "refused", data, "refused"]
    turn = iter(range(10**6))

    def make(_: Random) -> Any:
        return inputs[next(turn) - 1]  # the first one is made beforehand

    target = Target(name="faulty", share=1, make=make, attack=attack)
    outcome = run_target(target, seed=1, first=0, stop=len(inputs))
    assert outcome.inputs == 4
    (finding,) = outcome.findings
    assert finding.what.startswith(what)
    assert finding.index == 2


def test_the_same_seed_gives_the_same_inputs() -> None:
    from tests.fuzz.targets import TARGETS

    for target in TARGETS:
        if target.name != "real events":
            made = [[repr(target.make(Random(seed))) for seed in range(20)] for _ in range(2)]
            assert made[0] == made[1]
            assert len(set(made[0])) > 5
