"""Draws the picture of the first page: runs `chatscope demo` and has rich draw what it printed.

Run it as `python docs/draw_demo.py`. The figures in the picture are those of that run.
"""

# ruff: noqa: INP001  # a script, not part of a package

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, Final

import anyio
from rich.terminal_theme import MONOKAI

from chatscope.cli import demo
from chatscope.cli.terminal import Terminal

PICTURE: Final = Path(__file__).resolve().parent / "demo.svg"
COLUMNS: Final = 84

# rich's template loads its font from the network. Any monospaced font does, because each text carries its length.
FONT_FACES: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def draw() -> str:
    """Run the demonstration and return the picture."""
    made: list[Terminal] = []

    def recording(**options: Any) -> Terminal:
        made.append(Terminal(**options, record=True, width=COLUMNS, file=io.StringIO()))
        made[0].print("[bold]$ chatscope demo[/bold]")
        return made[0]

    setattr(demo, "Terminal", recording)  # noqa: B010 - the same console, which also records; checkers see a class
    if code := anyio.run(demo.demo):
        raise SystemExit(code)
    (terminal,) = made
    picture = terminal.export_svg(title="chatscope demo", theme=MONOKAI, unique_id="demo")
    return FONT_FACES.sub("", picture).replace("Fira Code", "ui-monospace")


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
