"""What prepares prompts where lhcq[train] is not installed, or not whole: a torch is there on many machines."""

import importlib.util
from typing import Any

import pytest

from lhcq.cli.models import chosen_model
from lhcq.requests.prepare import model_for_tokens
from lhcq.workspace import Workspace


@pytest.mark.parametrize("package", ["torch", "transformers", "gguf"])
def test_prompts_need_no_model_where_one_package_of_training_is_missing(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    find = importlib.util.find_spec

    def found(name: str, *more: Any) -> Any:
        return None if name == package else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    said: list[str] = []
    assert model_for_tokens(None, place, said.append) == (None, None)
    assert "lhcq[train] is not installed" in said[0]
    assert chosen_model(None, place) is None
