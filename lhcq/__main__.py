"""`python -m lhcq`: the program, by the interpreter that it is installed for."""

from lhcq.cli.main import main

main()
