"""docs/architecture.md is true: its picture follows the import contract, and the files that it names exist."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SCRIPT = runpy.run_path(str(ROOT / "docs" / "draw_rooms.py"))
FLOORS: list[list[str]] = SCRIPT["floors"]()

MOST_FILES = 4


def section(title: str) -> str:
    """Return the text below a heading."""
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_picture_is_the_import_contract() -> None:
    picture = (ROOT / "docs" / "rooms.svg").read_text(encoding="utf-8")
    assert picture == SCRIPT["draw"](FLOORS), "run: python docs/draw_rooms.py"


def test_every_room_is_described() -> None:
    described = {
        room for row in re.findall(r"^\| (`.*?) \|", section("Rooms"), re.MULTILINE) for room in row.split(", ")
    }
    assert described == {f"`{room}`" for floor in FLOORS for room in floor}


def test_each_path_has_ten_lines() -> None:
    for title in ("The path of a task", "The path of a stream"):
        assert re.findall(r"^(\d+)\. ", section(title), re.MULTILINE) == [str(number) for number in range(1, 11)]


def test_each_change_names_a_few_files_that_exist() -> None:
    rows = re.findall(r"^\| ([a-z].*?) \| (`.*) \|$", section("Where to change what"), re.MULTILINE)
    assert len(rows) >= 8
    for change, places in rows:
        files = re.findall(r"`((?:src|tests|docs)/[\w./]+)`", places)
        assert 1 <= len(files) <= MOST_FILES, change
        assert [file for file in files if not (ROOT / file).is_file()] == [], change
