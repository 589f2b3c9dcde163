"""`python -m benchmarks.load`: how true the figures of `chatscope.load` are; see `scenarios/load.py`."""

import sys

from benchmarks.scenarios.load import main

if __name__ == "__main__":
    sys.exit(main())
