"""examples/README.md lists every example, with the command from the example's docstring."""

from __future__ import annotations

import re

from tests.support.processes import ROOT

EXAMPLES = ROOT / "examples"


def test_every_example_is_listed_with_the_command_of_its_head() -> None:
    rows = re.findall(r"^\| \[([\w.]+)\]\((\S+)\) \| `([^`]+)` \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    found = {path.name for path in EXAMPLES.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__pycache__"}
    assert {name for name, _, _ in rows} == found
    for name, _, command in rows:
        files = [EXAMPLES / name, *(EXAMPLES / name).glob("*.py")]
        heads = [path.read_text().split('"""')[1] for path in files if path.is_file()]
        assert any(command in map(str.strip, head.splitlines()) for head in heads), name
