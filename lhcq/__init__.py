"""lhcq: LHC Olympics collision events in, a language model that tells signal from background out.

The names of `lhcq.api` are here too. They are looked up when they are used: importing lhcq loads nothing.
"""

import importlib
from typing import Any

__all__ = [
    "cluster",
    "dataset",
    "generate",
    "load",
    "metrics",
    "mix",
    "plan_cluster",
    "plan_generate",
    "plan_prepare",
    "plan_scan",
    "plan_score",
    "plan_search",
    "plan_train",
    "prepare",
    "scan",
    "score",
    "search",
    "submit",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("lhcq.version").version()
    if name in __all__:
        return getattr(importlib.import_module("lhcq.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "__version__", *__all__]
