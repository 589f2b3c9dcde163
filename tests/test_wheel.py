"""What the wheel holds: all that users need, and nothing that they don't."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of the wheel as it is built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.iterdir()
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_holds_the_package(names: set[str]) -> None:
    source = ROOT / "src"
    package = {
        path.relative_to(source).as_posix()
        for path in (source / "chatscope").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("chatscope/")} == package
    assert {"chatscope/py.typed", "chatscope/pricing/prices.json"} <= names


def test_it_holds_nothing_else(names: set[str]) -> None:
    others = {name.partition("/")[2] for name in names if not name.startswith("chatscope/")}
    assert others == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    assert {Path(name).suffix for name in names if name.startswith("chatscope/")} == {
        *(".py", ".typed", ".json"),
        *(".css", ".js"),  # of the pages of load tests
    }
