"""`python -m tapray`."""

from tapray.cli import main

main()
