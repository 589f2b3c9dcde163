"""`python -m chatscope`: the same as the command `chatscope`."""

from __future__ import annotations

import sys

from chatscope.cli import main

if __name__ == "__main__":
    sys.exit(main())
