"""The names of a response's headers in lower case, worked out once for each sequence of names.

Names may come in any case. But a server sends the same ones in the same order with nearly every response, and to look a
sequence up takes a fraction of what it takes to convert twenty or thirty names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["lower_names"]

# Servers use a few sequences each. Made-up ones must not add up, neither in number nor in length.
MAX_SEQUENCES = 64
MAX_NAMES = 64

_known: dict[tuple[bytes, ...], Mapping[str, bytes]] = {}


def lower_names(names: tuple[bytes, ...]) -> Mapping[str, bytes]:
    """Return the names as they came by their lower-case forms; of several with one form, the last."""
    found = _known.get(names)
    if found is None:
        found = {name.decode("latin-1").lower(): name for name in names}
        if len(names) <= MAX_NAMES:
            if len(_known) >= MAX_SEQUENCES:
                _known.clear()
            _known[names] = found
    return found
