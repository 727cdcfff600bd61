"""Runs the command line with `python -m orderwire`."""

from orderwire.cli import main

if __name__ == "__main__":
    main()
