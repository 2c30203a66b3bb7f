"""`tenure`, `kubectl tenure` (the script kubectl-tenure on the PATH), and `python -m tenure`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Runs the command line; ends the process with its exit status."""
    from tenure.cli import app

    app(prog_name="kubectl tenure" if Path(sys.argv[0]).name == "kubectl-tenure" else "tenure")


if __name__ == "__main__":
    main()
