"""`python -m benchmarks.soak`: very many tasks through one adapter; see `scenarios/soak.py`."""

import sys

from benchmarks.scenarios.soak import main

if __name__ == "__main__":
    sys.exit(main())
