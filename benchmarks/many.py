"""`python -m benchmarks.many`: ten thousand tasks through `map`; see `scenarios/many.py`."""

import sys

from benchmarks.scenarios.many import main

if __name__ == "__main__":
    sys.exit(main())
