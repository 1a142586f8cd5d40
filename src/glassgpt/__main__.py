"""`python -m glassgpt` is `glassgpt`."""

from glassgpt.cli.main import entry

if __name__ == "__main__":
    entry()
