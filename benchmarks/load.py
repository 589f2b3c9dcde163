"""`python -m benchmarks.load`: the accuracy of `chatscope.load`; see `scenarios/load.py`."""

import sys

from benchmarks.scenarios.load import main

if __name__ == "__main__":
    sys.exit(main())
