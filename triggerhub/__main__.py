"""`triggerhub` and `python -m triggerhub`."""

from __future__ import annotations


def main() -> None:
    """The command line."""
    from triggerhub.cli import app

    app()


if __name__ == "__main__":
    main()
