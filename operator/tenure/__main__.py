"""`tenure`, and `python -m tenure`."""

from __future__ import annotations


def main() -> None:
    """Runs the command line; ends the process with its exit status."""
    from tenure.cli import app

    app(prog_name="tenure")


if __name__ == "__main__":
    main()
