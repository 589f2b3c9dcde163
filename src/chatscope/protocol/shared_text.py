"""One string for equal short texts of many responses, such as the model's name: results are kept by the thousand."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

SHARED_TEXTS: Final = 256
"""How many texts are shared. `sys.intern` has no such bound, and on Python 3.12 it keeps every text for ever, so a
server could fill the memory with names."""

SHARED_LENGTH: Final = 128
"""The longest text that is shared, in characters: more than any name has."""

_same = lru_cache(SHARED_TEXTS)(str)


def shared(text: str) -> str:
    """Return a string that is equal to the given one, and the same for equal short ones."""
    return _same(text) if len(text) <= SHARED_LENGTH else text
