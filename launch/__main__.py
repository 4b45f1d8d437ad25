"""`python -m omnistage.launch` is the `omnistage` command."""

from __future__ import annotations

import sys

from omnistage.launch.cli import main

if __name__ == "__main__":
    sys.exit(main())
