"""Keys of requests, and sets of them that need 16 bytes per entry.

A key is a hash of the request. So a row that moves keeps its key, and an edited row gets another one.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Final

import msgspec

SIZE: Final = 16
"""Bytes of a digest: among 10**9 keys, two that differ collide with a probability of 10**-21 (birthday bound)."""

_SEARCHED: Final = 32
"""The largest part that is searched sequentially. Larger parts get offsets."""

_unused: Final = blake2b(digest_size=SIZE)
"""Copied for each digest, which is a third cheaper than a new one."""

_encode: Final = msgspec.json.Encoder(order="deterministic", enc_hook=str).encode


def request_key(url: str, body: Mapping[str, Any]) -> bytes:
    """Return the key of a request: the digest of its canonical JSON. Key order and white space do not matter.

    The server's address is not included: whether another server may continue an output is decided by the manifest.
    """
    return digest_of(canonical(url, body))


def canonical(url: str, body: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of a request, of which its key is made."""
    return _encode({"url": url, "body": body})


def text_digest(text: str) -> bytes:
    """Return the digest of a custom_id."""
    return digest_of(text.encode("utf-8", "surrogatepass"))


def digest_of(data: bytes) -> bytes:
    """Return the digest of bytes."""
    digest = _unused.copy()
    digest.update(data)
    return digest.digest()


def pair_digest(id_digest: bytes, key: bytes) -> bytes:
    """Combine the digest of an id with a key. Outcomes are recorded for exactly this pair.

    Combining two digests costs a third as much as hashing.
    """
    combined = int.from_bytes(id_digest, "little") ^ int.from_bytes(key, "little")
    return combined.to_bytes(SIZE, "little")


class DigestTable:
    """A set of digests: add all of them, then look them up. A million need 16 MB; in a Python set, 80 to 110.

    A look-up sorts what was added since the last one.
    """

    __slots__ = ("_added", "_offsets", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes | bytearray] = [bytearray() for _ in range(256)]  # by the first byte
        self._offsets: list[array[int] | None] = []  # within a sorted part, by the second byte
        self._added = True

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts) // SIZE

    def add(self, digest: bytes) -> None:
        """Add a digest. One that is added twice is stored twice until `duplicates` or a look-up sorts the table."""
        if not self._added:
            self._parts = [bytearray(part) for part in self._parts]
            self._added = True
        self._parts[digest[0]] += digest

    def __contains__(self, digest: bytes) -> bool:
        if self._added:
            self._sort()
        part, offsets, second = self._parts[digest[0]], self._offsets[digest[0]], digest[1]
        at, end = (0, len(part)) if offsets is None else (offsets[second], offsets[second + 1])
        while (at := part.find(digest, at, end)) >= 0:
            if at % SIZE == 0:
                return True
            at += 1  # a match across the end of one entry and the start of the next
        return False

    def duplicates(self) -> Iterator[bytes]:
        """Iterate over the digests that were added more than once. Call this before the first look-up."""
        for part in self._parts:
            whole = bytes(part)
            entries = [whole[at : at + SIZE] for at in range(0, len(whole), SIZE)]
            if len(set(entries)) < len(entries):
                yield from (entry for entry, times in Counter(entries).items() if times > 1)

    def _sort(self) -> None:
        self._offsets = []
        for first, part in enumerate(self._parts):
            whole = bytes(part)
            entries = sorted({whole[at : at + SIZE] for at in range(0, len(whole), SIZE)})
            self._parts[first] = whole = b"".join(entries)
            self._offsets.append(_offsets(whole) if len(entries) > _SEARCHED else None)
        self._added = False


def _offsets(part: bytes) -> array[int]:
    """Return where the entries with each second byte start in a sorted part, and where the last of them ends."""
    sizes = Counter(part[1::SIZE])
    return array("Q", accumulate((SIZE * sizes[second] for second in range(256)), initial=0))


class OffsetTable:
    """Offsets by digest: 24 bytes per entry."""

    _ENTRY: Final = SIZE + 8

    def __init__(self) -> None:
        self._parts = [bytearray() for _ in range(1 << 12)]  # by the first 12 bits

    def add(self, digest: bytes, offset: int) -> None:
        """Add an offset; a digest may have several."""
        part = self._parts[_first_bits(digest)]
        part += digest + offset.to_bytes(8, "big")

    def offsets(self, digest: bytes) -> list[int]:
        """Return the offsets of a digest, ascending."""
        part = self._parts[_first_bits(digest)]
        found = []
        at = part.find(digest)
        while at >= 0:
            if at % self._ENTRY == 0:
                found.append(int.from_bytes(part[at + SIZE : at + self._ENTRY], "big"))
            at = part.find(digest, at + 1)
        return sorted(found)


def _first_bits(digest: bytes) -> int:
    return digest[0] << 4 | digest[1] >> 4
