"""What a task ends with: from what happened to its result."""

from __future__ import annotations

import math


def check_cost(cost: object) -> float:
    """Return what a user's price function answered, as a number of US dollars.

    Raises:
        ValueError, TypeError: it is none.
    """
    dollars = float(cost)  # type: ignore[arg-type]  # what it may be is the user's; a Decimal is welcome
    if not math.isfinite(dollars):
        raise ValueError(f"{cost!r} is no price")
    return dollars
