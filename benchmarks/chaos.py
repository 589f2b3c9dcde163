"""`python -m benchmarks.chaos`: random tasks, cancelled at random moments; see `scenarios/chaos.py`."""

import sys

from benchmarks.scenarios.chaos import main

if __name__ == "__main__":
    sys.exit(main())
