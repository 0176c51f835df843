"""The real small model, loaded once a test session."""

import pytest


@pytest.fixture(scope="session")
def base(smollm2):
    """The 4-bit base, as a worker keeps it."""
    import torch

    from lhcq.model.resident import resident_base

    # These prompts gain nothing from a second thread, and threads that share a core with other tests crawl.
    torch.set_num_threads(1)
    return resident_base(smollm2)
