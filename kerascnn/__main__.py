"""`python -m kerascnn` is the `kerascnn` command."""

from kerascnn.cli import main

main()
