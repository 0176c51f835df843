"""`python -P -m tasks worker|flower ...`: Celery's worker and Flower, with their own options, for our application.

Not Celery's command line, which looks for the application in the current directory before all others, and there may
lie a `tasks.py` of the user's. `-P` keeps that directory out of Python's own search path as well.
"""

import sys

from tasks.app import app


def main() -> None:
    """Run what the first argument names with those that follow."""
    name, *arguments = sys.argv[1:] or [""]
    if name == "worker":
        _run_worker(arguments)
    elif name == "flower":
        from tasks.workers.flower import run_flower

        run_flower(arguments)
    else:
        sys.exit("usage: python -P -m tasks worker|flower [OPTIONS]")


def _run_worker(arguments: list[str]) -> None:
    from celery.bin.base import CLIContext
    from celery.bin.worker import worker

    context = CLIContext(app=app, no_color=True, workdir=None, quiet=True)
    worker.main(args=arguments, prog_name="worker", obj=context)


if __name__ == "__main__":
    main()
