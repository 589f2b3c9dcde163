"""`python -m benchmarks.batch`: the cost of batches, and the failures they survive; see `scenarios/batch.py`."""

import sys

from benchmarks.scenarios.batch import main

if __name__ == "__main__":
    sys.exit(main())
