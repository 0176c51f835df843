"""`lhcq doctor`."""

import contextlib
import os
from typing import TYPE_CHECKING

import click

from lhcq.cli.options import answer, json_option

if TYPE_CHECKING:
    from lhcq.workspace import Workspace
    from tasks.doctor import Finding


@click.command("doctor")
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
    """Everything that can be examined from here."""
    from lhcq.config import Settings
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

    if not workspace.root.exists():
        workspace.create()  # what it would stand on is examined
    findings = [*filesystem_findings(workspace.root), *record_findings(workspace), *environment_findings()]
    configured = Settings.from_environment().broker_url
    running = running_broker(workspace)
    if not (configured or running or os.access(workspace.root, os.W_OK)):
        told = "of the workspace's own one its owner alone can tell; LHCQ_BROKER_URL names no other"
        return [*findings, Finding(check="broker", state="ok", found=told)]
    with contextlib.ExitStack() as stack:
        try:
            url = configured or running or stack.enter_context(embedded_broker(workspace))
            connect(url)
        except LhcqError as error:
            return [*findings, Finding.of_error("broker", error)]
        met = broker_findings(workspace)
        findings += met
        if any(finding.state == "error" for finding in met if finding.check == "broker"):
            return findings
        if configured or running:
            findings += worker_findings(workspace)
        else:
            findings += _local_fit(workspace)
        return findings + security_findings()


def _local_fit(workspace: "Workspace") -> "list[Finding]":
    """Whether models fit on this host, if it can train at all."""
    import importlib.util

    from lhcq.model.gpus import gpus_here
    from tasks.doctor import fit_finding, memory_here

    if importlib.util.find_spec("torch") is None:
        return []
    return [fit_finding(workspace, "this host", gpus_here(), memory_here())]


def _text(findings: "list[Finding]") -> str:
    lines = []
    for finding in findings:
        lines.append(f"{finding.check:<14} {finding.state:<8} {finding.found}")
        if finding.remedy:
            lines.append(f"{'':<23} -> {finding.remedy}")
    return "\n".join(lines)
