"""The reference documents every public name. The nox session `docs` builds its pages."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Final

import pytest

import chatscope
import chatscope.batch
import chatscope.load
import chatscope.ray
import chatscope.simulator
import chatscope.telemetry
import chatscope.testing
import chatscope.transport
import chatscope.transport.httpx2

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "chatscope"
PAGES = sorted((ROOT / "docs" / "reference").glob("*.rst"))
DIRECTIVE = re.compile(r"^\.\. ([\w:]+):: ([\w.]+).*((?:\n   .*)*)", re.MULTILINE)
MODULES = {"automodule", "currentmodule", "py:module"}

PUBLIC: Final = (
    chatscope,
    chatscope.batch,
    chatscope.load,
    chatscope.ray,
    chatscope.simulator,
    chatscope.telemetry,
    chatscope.testing,
    chatscope.transport,
    chatscope.transport.httpx2,
)

BETWEEN_ROOMS: Final = {
    # How an argument becomes a value, in every room that takes one.
    "RetryPolicy": {"of"},
    "Timeouts": {"of", "for_transport"},
    "Profile": {"adapt_messages"},
    "RequestError": {"of"},
    # The protocols that these classes implement are documented.
    "LeasedPacer": {"connect", "wait_for", "take", "settle", "cancel", "on_pause"},
    "Telemetry": {"call"},
    # The client sends without the objects of httpx, and a load test takes the stamps of the kernel.
    "HTTPTransport": {"max_decoded_bytes", "post"},
    "ReadWitness": {"watch", "record"},
    # The plan of a load test is also what its workers follow.
    "LoadPlan": {"stages", "stage_at", "slot_offset", "objectives", "windows", "schedule", "parameters_for"},
    "LoadMonitor": {"add", "on_stage"},
    "Workload": {"sessions", "prompt_sources", "messages"},
    "Length": {"draw"},
    "RequestRecord": {"to_json"},
    # `chatscope.testing` plays the simulator's responses.
    "ChatRequest": {"parse"},
    "Response": {"with_default_header", "index", "plan"},
}
"""Public members that are not for users: what one room of the package needs of another's public class."""


def documented_members() -> dict[str, set[str] | None]:
    """Return the members that the reference names, by the full name of their class; `None` means all of them."""
    found: dict[str, set[str] | None] = {}
    for page in PAGES:
        module = ""
        for directive, name, options in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            if directive in MODULES:
                module = name
            listed = re.search(r":members:(.*)", options)
            names = set() if listed is None else set(re.findall(r"\w+", listed[1])) or None
            found[name if name.startswith("chatscope") else f"{module}.{name}"] = names
    return found


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_public_name_is_documented(module: ModuleType) -> None:
    assert {f"{module.__name__}.{name}" for name in module.__all__} - documented_members().keys() == set()


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_public_classes_show_public_things_only(module: ModuleType) -> None:
    """Whatever a public class shows is in the reference, or it is one of the few things that other rooms need."""
    members = documented_members()
    for name in module.__all__:
        cls, documented = getattr(module, name), members[f"{module.__name__}.{name}"]
        if isinstance(cls, type) and cls.__module__.startswith("chatscope") and documented is not None:
            shown = {
                key
                for key, value in vars(cls).items()
                if not key.startswith("_") and isinstance(value, FunctionType | property | classmethod | staticmethod)
            }
            problem = f"{name}: document it, or keep it in a private object"
            assert shown - documented == BETWEEN_ROOMS.get(name, set()), problem


def test_the_decoder_is_documented() -> None:
    assert "chatscope.protocol.sse.SSEDecoder" in documented_members()


@pytest.mark.parametrize("path", ["protocol/parameters.py", "_client/parameters.py", "_client/config.py"])
def test_every_argument_that_a_typed_dict_names_has_its_sentence(path: str) -> None:
    """Editors show the text below a field where the argument is given."""
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    found = 0
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        if not cls.name.endswith(("Parameters", "Arguments", "CopyOptions")):
            continue
        for field, text in zip(cls.body, [*cls.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                found += 1
                is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                assert is_text, f"{cls.name}.{ast.unparse(field.target)}"
    assert found
