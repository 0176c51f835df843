"""Layers of the real small model, loaded once a test session."""

import pytest


@pytest.fixture(scope="session")
def model_dir(request):
    """Four layers of it: what holds of their sums, cuts and files holds of thirty. A GPU takes all, in no time."""
    import torch

    return request.getfixturevalue("smollm2" if torch.cuda.is_available() else "few_layers")


@pytest.fixture(scope="session")
def base(model_dir):
    """The 4-bit base of that directory, as a worker keeps it, which computes by one thread.

    These prompts gain nothing from a second one, and threads that share a core with other tests crawl.
    """
    import torch

    from lhcq.model.model_cache import resident_base

    torch.set_num_threads(1)
    return resident_base(model_dir)


@pytest.fixture(scope="session")
def exact(base, model_dir):
    """The base computing in float32, on a GPU too.

    What a test says of two ways to the same number is held to float32's rounding everywhere: bfloat16's, 2^-9 at some
    hundred places of a pass, would hide a row that is missing.
    """
    import torch

    from lhcq.model import base as base_module

    if base.compute_dtype == torch.float32:
        return base
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(base_module, "compute_dtype", lambda device: torch.float32)
        return base_module.load_base(model_dir)


@pytest.fixture
def in_float32(monkeypatch):
    """What is loaded computes in float32, on a GPU too, as `exact` does."""
    import torch

    from lhcq.model import base as base_module

    monkeypatch.setattr(base_module, "compute_dtype", lambda device: torch.float32)
