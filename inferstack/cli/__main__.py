"""`python -m inferstack.cli` is the command `inferstack`."""

from inferstack.cli import main

main()
