"""The reference documents every public name. The nox session `docs` builds its pages."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType

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
DIRECTIVE = re.compile(r"^\.\. ([\w:]+):: ([\w.]+)", re.MULTILINE)
MODULES = {"automodule", "currentmodule", "py:module"}


def documented() -> set[str]:
    """Return the full names of everything in the reference."""
    names = set()
    for page in PAGES:
        module = ""
        for directive, name in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            if directive in MODULES:
                module = name
            names.add(name if name.startswith("chatscope") else f"{module}.{name}")
    return names


@pytest.mark.parametrize(
    "module",
    [
        chatscope,
        chatscope.batch,
        chatscope.load,
        chatscope.ray,
        chatscope.simulator,
        chatscope.telemetry,
        chatscope.testing,
        chatscope.transport,
        chatscope.transport.httpx2,
    ],
    ids=lambda module: module.__name__,
)
def test_every_public_name_is_documented(module: ModuleType) -> None:
    assert {f"{module.__name__}.{name}" for name in module.__all__} - documented() == set()


def test_the_decoder_is_documented() -> None:
    assert "chatscope.protocol.sse.SSEDecoder" in documented()


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
