"""`lhcq doctor`."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import example

if TYPE_CHECKING:
    from lhcq.workspace import Workspace
    from tasks.doctor import Finding


@click.command("doctor", epilog=example("lhcq doctor"))
@json_option
def command(as_json: bool) -> int:
    """Examine what lhcq stands on: broker, workers, clocks, workspace, versions, memory, security, disk.

    Every worker proves that it shares the workspace by a file that it commits there. Without a broker, what is local
    is examined, the broker that lhcq brings included. Exit code 1: something would lose work.
    """
    from lhcq.cli.session import find_workspace

    workspace = find_workspace()
    findings = examine(workspace)
    loses = any(finding.state == "error" for finding in findings)
    value = {
        "workspace": str(workspace.root),
        "loses_work": loses,
        "findings": [finding.model_dump() for finding in findings],
    }
    answer(as_json, value, _text(findings))
    return int(loses)


def examine(workspace: "Workspace") -> "list[Finding]":
    """Everything that can be examined from here; a workspace that does not exist is not made by the question."""
    from lhcq.workspace import Workspace
    from tasks.doctor import Finding

    if workspace.root.is_dir():
        return _examine(workspace, workspace)
    beside = next(path for path in workspace.root.parents if path.is_dir())
    there_is_none = Finding(
        check="workspace",
        state="ok",
        found=f"{workspace.root} does not exist yet: the first command that makes something makes it",
    )
    try:
        with tempfile.TemporaryDirectory(prefix=".lhcq-doctor-", dir=beside) as scratch:
            return [there_is_none, *_examine(workspace, Workspace(Path(scratch)))]
    except OSError as error:
        refused = Finding(
            check="workspace",
            state="error",
            found=f"{workspace.root} cannot be made: {beside} cannot be written to ({error.strerror})",
            remedy="Set LHCQ_WORKSPACE to a directory that can.",
        )
        return [refused]


def _examine(workspace: "Workspace", place: "Workspace") -> "list[Finding]":
    """What is found of a workspace; `place` stands for one that does not exist where something is tried out in it."""
    from lhcq.environment import Settings
    from lhcq.errors import LhcqError
    from tasks.client import connect, embedded_broker, running_broker
    from tasks.doctor import (
        Finding,
        broker_findings,
        environment_findings,
        filesystem_findings,
        record_findings,
        security_findings,
        worker_findings,
    )

    findings = [*filesystem_findings(place.root), *record_findings(workspace), *environment_findings()]
    configured = Settings.from_environment().broker_url
    running = running_broker(workspace)
    if not (configured or running or os.access(place.root, os.W_OK)):
        told = "of the workspace's own one its owner alone can tell; LHCQ_BROKER_URL names no other"
        return [*findings, Finding(check="broker", state="ok", found=told)]
    with contextlib.ExitStack() as stack:
        try:
            url = configured or running or stack.enter_context(embedded_broker(place))
            connect(url)
        except LhcqError as error:
            return [*findings, Finding.of_error("broker", error)]
        met = broker_findings(workspace)
        findings += met
        if any(finding.state == "error" for finding in met if finding.check == "broker"):
            return findings
        if (configured or running) and workspace is place:
            findings += worker_findings(workspace)
        elif not configured:
            findings += _local_fit(workspace)
        return findings + security_findings()


def _local_fit(workspace: "Workspace") -> "list[Finding]":
    """Whether models fit on this host, if it can train at all."""
    from lhcq.extras import missing_for_training
    from lhcq.model.gpus import gpus_here
    from tasks.doctor import fit_finding, memory_here

    if missing_for_training() is not None:
        return []
    return [fit_finding(workspace, "this host", gpus_here(), memory_here())]


def _text(findings: "list[Finding]") -> str:
    lines = []
    for finding in findings:
        lines.append(f"{finding.check:<14} {finding.state:<8} {finding.found}")
        if finding.remedy:
            lines.append(f"{'':<23} -> {finding.remedy}")
    return "\n".join(lines)
