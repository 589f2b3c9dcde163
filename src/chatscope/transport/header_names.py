"""The names of a response's headers in lower case, cached for each sequence of names.

Names may arrive in any case. But a server sends the same names in the same order in nearly every response. Looking up a
sequence takes a fraction of the time of converting twenty or thirty names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["lower_names"]

# A server uses a few sequences. One that invents names must not fill the memory, by their number or their length.
MAX_SEQUENCES = 64
MAX_NAMES = 64

_known: dict[tuple[bytes, ...], Mapping[str, bytes]] = {}


def lower_names(names: tuple[bytes, ...]) -> Mapping[str, bytes]:
    """Return the original names by their lower-case forms. If several have the same form, the last one counts."""
    found = _known.get(names)
    if found is None:
        found = {name.decode("latin-1").lower(): name for name in names}
        if len(names) <= MAX_NAMES:
            if len(_known) >= MAX_SEQUENCES:
                _known.clear()
            _known[names] = found
    return found
