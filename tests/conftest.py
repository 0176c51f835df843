"""What tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The directory of the real LHC Olympics events."""
    where = os.environ.get("LHCQ_TEST_DATA")
    if not where:
        pytest.skip("LHCQ_TEST_DATA does not name the directory of the real LHC Olympics events")
    return Path(where)
