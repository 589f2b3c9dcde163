"""Adds to an error the address of its request, and a hint about what may be wrong with it. Pure functions.

Not here: how the address is built (`endpoint`), and what a response means (`error_body`, `body`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from typing import Final

from chatscope.errors import APIConnectionError, ChatError
from chatscope.protocol.endpoint import shown_url

_VERSIONED: Final = re.compile(r"/v\d|/deployments/")
"""Paths that servers of this protocol use: a version, or one of Azure's deployments."""

_EXPECTED_TYPES: Final = ("json", "event-stream")

_WRONG_PATH: Final = frozenset({404, 405})

_TLS_HINTS: Final = {
    "CERTIFICATE_VERIFY_FAILED": "a private CA goes into verify=",
    **dict.fromkeys(
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"), "does the server speak http://?"
    ),
}
"""OpenSSL's reasons, and what may be wrong. The last three are how it interprets bytes that are not TLS."""

_HIDDEN: Final = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|<[^>]*>?", re.IGNORECASE | re.DOTALL)


def locate(error: ChatError, url: str, headers: Mapping[str, str]) -> None:
    """Set an error's `where` to its request's address and, if that looks wrong, its `hint`.

    Args:
        error: the error. An existing `where` is kept.
        url: the address of the request.
        headers: the response's, names in lower case; empty if there was no response.
    """
    if error.where is not None:
        return
    address = shown_url(url)
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_expected = not content_type or content_type.endswith(_EXPECTED_TYPES)
    error.where = f"POST {address}" if is_expected else f"POST {address}, which sent {content_type}"
    is_unknown_path = error.status in _WRONG_PATH and error.code is None
    if (is_unknown_path or content_type == "text/html") and not _VERSIONED.search(address):
        error.hint = "does base_url lack /v1?"
    elif isinstance(error, APIConnectionError):
        error.hint = next((hint for words, hint in _TLS_HINTS.items() if words in error.message), None)


def visible_words(text: str) -> str:
    """Return the text of a body in one line; for an HTML page, the text that a browser would show."""
    if text.lstrip()[:1] == "<":
        text = unescape(_HIDDEN.sub(" ", text))
    return " ".join(text.split())
