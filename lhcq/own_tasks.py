"""Whether the package `tasks` is ours: its name is a common one."""

import importlib.util
from pathlib import Path

from lhcq.errors import BadInput


def refuse_other_tasks() -> None:
    """Raise `BadInput` where the module `tasks` is not lhcq's: it would run in its place, whatever it does."""
    ours = Path(__file__).resolve().parents[1] / "tasks" / "__init__.py"
    found = importlib.util.find_spec("tasks")
    origin = found.origin if found else None
    if origin is None or not ours.samefile(origin):
        raise BadInput(
            f"the Python module `tasks` is {origin or 'nowhere'} here, in front of lhcq's own ({ours}). Rename it, "
            "or take its directory out of PYTHONPATH; with `python -m`, start in another directory."
        )
