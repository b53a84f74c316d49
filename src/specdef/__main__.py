"""`python -m specdef` is the command line."""

from specdef.cli.main import main

main()
