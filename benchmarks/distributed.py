"""`python -m benchmarks.distributed`: many workers, one limit, and failing nodes; see `scenarios/distributed.py`."""

import sys

from benchmarks.scenarios.distributed import main

if __name__ == "__main__":
    sys.exit(main())
