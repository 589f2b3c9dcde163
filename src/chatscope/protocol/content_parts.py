"""The parts of a message's content, where a server sends it as a list of parts (Mistral's reasoning models)."""

from __future__ import annotations


def thinking_in(part: object) -> str:
    """Return the reasoning in a part of a message's content (Mistral's `thinking` parts), or `""`."""
    thinking = part.get("thinking") if isinstance(part, dict) else None
    if isinstance(thinking, str):
        return thinking
    parts = thinking if isinstance(thinking, list) else ()
    return "".join(p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str))


def text_in(part: object) -> str:
    """Return the text in a part of a message's content, or `""`."""
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else ""
