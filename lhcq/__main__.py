"""The program: as `lhcq` where it is installed, as `python -m lhcq` by the interpreter that it is installed for.

It loads nothing beside Python until Ctrl-C is heard, which during an import would be a traceback.
"""

import signal
import sys

_INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run the program."""
    try:
        from lhcq.cli.main import main as run
    except BaseException as error:  # while modules load, others make other exceptions of it
        from lhcq.interrupts import is_interrupt

        if not is_interrupt(error):
            raise
        sys.exit(_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
