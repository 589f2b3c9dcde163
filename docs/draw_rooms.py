"""Draws the picture of `architecture.md` from the import contract in pyproject.toml: `python docs/draw_rooms.py`.

A test keeps `rooms.svg` equal to the contract.
"""

# ruff: noqa: INP001  # a script, not part of a package

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parent
PICTURE: Final = DOCS / "rooms.svg"

WIDTH: Final = 760
LEFT: Final = 56
ROW: Final = 52
BOX: Final = 36
GAP: Final = 10

STYLE: Final = """
    text { font: 14px ui-monospace, monospace; text-anchor: middle; fill: #1b2a41; }
    rect { fill: #dbe7f6; stroke: #4a6fa5; rx: 6px; }
    rect.private { fill: #f4f6f9; stroke: #8b97a8; }
    path { fill: none; stroke: #4a6fa5; stroke-width: 2; }
    text.label { font: 13px system-ui, sans-serif; fill: #4a6fa5; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf5; }
      rect { fill: #24405f; stroke: #86a8d6; }
      rect.private { fill: #232a33; stroke: #76818f; }
      path { stroke: #86a8d6; }
      text.label { fill: #86a8d6; }
    }
"""


def floors() -> list[list[str]]:
    """Return the rooms of the import contract, floor by floor, from the top."""
    with (DOCS.parent / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    return [[room.strip() for room in layer.split("|")] for layer in layers]


def draw(rooms: list[list[str]]) -> str:
    """Return the picture: one row for each floor, public rooms in colour."""
    height = len(rooms) * ROW + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "  <title>The rooms of chatscope, floor by floor</title>",
        f"  <style>{STYLE}  </style>",
        f'  <path d="M 30 {GAP} V {height - GAP} m -6 -10 l 6 10 l 6 -10"/>',
        f'  <text class="label" transform="translate(18 {height / 2:g}) rotate(-90)">may import</text>',
    ]
    for floor, names in enumerate(rooms):
        top = GAP + floor * ROW
        width = (WIDTH - LEFT - GAP * len(names)) / len(names)
        for number, name in enumerate(names):
            left = LEFT + number * (width + GAP)
            private = ' class="private"' if name.startswith("_") else ""
            lines.append(f'  <rect{private} x="{left:.1f}" y="{top}" width="{width:.1f}" height="{BOX}"/>')
            lines.append(f'  <text x="{left + width / 2:.1f}" y="{top + BOX / 2 + 5:g}">{escape(name)}</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(floors()), encoding="utf-8")
