"""`python -m hanse` is `hanse`."""

from hanse.apps.cli import main

if __name__ == "__main__":
    main()
