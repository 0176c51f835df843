"""The real small model, obtained once a machine and loaded once a test session."""

import os
from pathlib import Path

import pytest

from lhcq.model.sources import obtain
from lhcq.workspace import Workspace

CACHE = Path(os.environ.get("LHCQ_TEST_CACHE") or Path(__file__).parents[2] / ".cache" / "lhcq-tests")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M as safetensors; the first session on a machine downloads and converts it (about 40 s)."""
    return obtain("smollm2", Workspace(CACHE), say=print)


@pytest.fixture(scope="session")
def base(smollm2):
    """The 4-bit base, as a worker keeps it."""
    import torch

    from lhcq.model.resident import resident_base

    # These prompts gain nothing from a second thread, and threads that share a core with other tests crawl.
    torch.set_num_threads(1)
    return resident_base(smollm2)
