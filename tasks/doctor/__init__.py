"""What `lhcq doctor` looks at."""

from tasks.doctor.checks import broker_findings, environment_findings, fit_finding, worker_findings
from tasks.doctor.filesystem import filesystem_findings
from tasks.doctor.finding import Finding
from tasks.doctor.records import record_findings
from tasks.doctor.security import security_findings
from tasks.doctor.worker_probe import memory_here

__all__ = [
    "Finding",
    "broker_findings",
    "environment_findings",
    "filesystem_findings",
    "fit_finding",
    "memory_here",
    "record_findings",
    "security_findings",
    "worker_findings",
]
