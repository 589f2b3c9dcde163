"""What importing the package costs: nothing that it does not need, and no data read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import chatscope

PROBE = """
import json, sys

read = []
sys.addaudithook(lambda event, args: read.append(str(args[0])) if event == "open" else None)
import httpx, anyio, stamina, msgspec, httptools
before = set(sys.modules)
import chatscope
bare = sorted(set(sys.modules) - before)
chatscope.AsyncChatGPTAdapter
loaded = sorted(set(sys.modules) - before)
print(json.dumps({"bare": bare, "modules": loaded, "all": sorted(sys.modules), "read": read}))
"""
"""httpx itself imports click and rich where they are installed, for its own command: that is not counted."""


@pytest.fixture(scope="module")
def probed() -> dict[str, list[str]]:
    """What one import in a fresh interpreter loaded and read."""
    ran = subprocess.run([sys.executable, "-W", "error", "-c", PROBE], capture_output=True, text=True, check=True)
    loaded: dict[str, list[str]] = json.loads(ran.stdout)
    return loaded


def test_its_names_are_loaded_when_asked_for(probed: dict[str, list[str]]) -> None:
    assert [module for module in probed["bare"] if module.startswith("chatscope")] == ["chatscope", "chatscope.version"]


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        chatscope.nothing  # noqa: B018
    assert not hasattr(chatscope, "Final"), "what the modules import for themselves is not public"
    assert dir(chatscope) == chatscope.__all__, "public names only"


@pytest.mark.parametrize("name", ["pydantic", "rich", "click", "opentelemetry", "respx", "h11", "tenacity", "openai"])
def test_it_loads_no(name: str, probed: dict[str, list[str]]) -> None:
    assert [module for module in probed["modules"] if module.split(".")[0] == name] == []


@pytest.mark.parametrize(
    "name", ["trio", "pydantic", "opentelemetry", "respx", "h11", "uvloop", "prometheus_client", "plotly", "ray"]
)
def test_nor_do_its_dependencies(name: str, probed: dict[str, list[str]]) -> None:
    assert [module for module in probed["all"] if module.split(".")[0] == name] == []


@pytest.mark.parametrize("room", ["simulator", "testing", "cli"])
def test_it_leaves_rooms_closed(room: str, probed: dict[str, list[str]]) -> None:
    assert [module for module in probed["modules"] if module.split(".")[:2] == ["chatscope", room]] == []


def test_it_does_not_read_the_prices(probed: dict[str, list[str]]) -> None:
    assert any("_tasks" in path for path in probed["read"]), "the audit hook works"
    assert [path for path in probed["read"] if path.endswith("prices.json")] == []


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(chatscope.__all__) == list(chatscope.__all__)
    for name in chatscope.__all__:
        assert getattr(chatscope, name) is not None
        if name != "__version__":
            assert getattr(chatscope, name).__doc__, name


def test_type_checkers_see_the_same_names() -> None:
    source = Path(chatscope.__file__).read_text()
    seen = set(re.findall(r"^    from chatscope[\w.]* import (\w+) as \1$", source, re.MULTILINE))
    assert seen | {"__version__"} == set(chatscope.__all__)


def test_it_is_typed() -> None:
    assert (Path(chatscope.__file__).parent / "py.typed").is_file()
