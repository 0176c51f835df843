"""Commands that are printed to be given stand in a shell as they are, whatever their paths hold."""

import shlex

from lhcq.config import Conventions
from lhcq.events.known import next_steps


def test_the_next_command_of_an_inspected_file(tmp_path) -> None:
    path = tmp_path / "an event's file.h5"
    steps = next_steps(path, "events with labels", [], Conventions())
    assert [shlex.split(step)[:3] for step in steps] == [["lhcq", "cluster", str(path)]]
