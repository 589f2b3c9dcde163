"""`python -m benchmarks.batch`: batches of requests, what they cost and survive; see `scenarios/batch.py`."""

import sys

from benchmarks.scenarios.batch import main

if __name__ == "__main__":
    sys.exit(main())
