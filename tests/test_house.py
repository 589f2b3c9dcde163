"""The measures of the house: sizes, names, and the floors of the import contract. Each failure names its offenders."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import chatscope
import chatscope.ray
import chatscope.simulator
import chatscope.telemetry
import chatscope.testing
import chatscope.transport

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "chatscope"

FILE_LINES = 340
CLASS_LINES = 250
FUNCTION_LINES = 40
ARGUMENTS = 8
FLOORS = 10
FILES_AT_THE_TOP = 7

OTHER_WORDS = re.compile(
    r"(^|_)(repl(y|ies)|answer(s|ed)?|exchanges?|passages?|traffic|lanes?|races?|pieces?|told|said|came|took|wins|blot"
    r"|whoever)(?=_|$)",
)
"""What is called response, attempt, permit, limiter, hedge, part, reported, received or redact instead."""

ALLOWED_NAMES = {
    "reply",  # a simulator's `Reply`, outside its room
    "replies",
    "answer_ns",  # the field of a record in `requests.jsonl`: the first output that is not reasoning
}

Function = ast.FunctionDef | ast.AsyncFunctionDef

PUBLIC = {
    name
    for module in (
        chatscope,
        chatscope.ray,
        chatscope.simulator,
        chatscope.telemetry,
        chatscope.testing,
        chatscope.transport,
    )
    for name in module.__all__
}


class Source(NamedTuple):
    """A module of the package, parsed."""

    path: str
    text: str
    tree: ast.Module


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append(Source(path.relative_to(PACKAGE).as_posix(), text, ast.parse(text)))
    assert len(found) > 50, "the sources are not where this test looks"
    return found


def classes(sources: list[Source]) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield every class with the path of its file."""
    for source in sources:
        yield from ((source.path, node) for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef))


def functions(sources: list[Source]) -> Iterator[tuple[str, Function]]:
    """Yield every function and method with the path of its file."""
    for source in sources:
        yield from ((source.path, node) for node in ast.walk(source.tree) if isinstance(node, Function))


def defined(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield every name that a module gives to something, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | Function):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def lines(node: ast.ClassDef | Function) -> int:
    """Count the lines of a class or function without the docstrings in it."""
    documented = sum(
        (each.end_lineno or each.lineno) - each.lineno + 1
        for each in ast.walk(node)
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) and isinstance(each.value.value, str)
    )
    return (node.end_lineno or node.lineno) - node.lineno + 1 - documented


def arguments(function: Function) -> int:
    """Count the arguments of a method without its `self`."""
    given = function.args
    named = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs) - 1
    return named + (given.vararg is not None) + (given.kwarg is not None)


def test_files_are_short(sources: list[Source]) -> None:
    long = {source.path: count for source in sources if (count := len(source.text.splitlines())) > FILE_LINES}
    assert not long, f"more than {FILE_LINES} lines: {long}"


def test_classes_are_short(sources: list[Source]) -> None:
    long = {
        node.name: f"{count} lines in {path}" for path, node in classes(sources) if (count := lines(node)) > CLASS_LINES
    }
    assert not long, f"classes of more than {CLASS_LINES} lines without docstrings: {long}"


def test_functions_are_short(sources: list[Source]) -> None:
    long = {
        f"{path}:{node.name}": count for path, node in functions(sources) if (count := lines(node)) > FUNCTION_LINES
    }
    assert not long, f"functions of more than {FUNCTION_LINES} lines without docstrings: {long}"


def test_internal_constructors_are_narrow(sources: list[Source]) -> None:
    """Public constructors may have more arguments: those are options, given by name."""
    wide = {
        node.name: f"{arguments(method)} arguments in {path}"
        for path, node in classes(sources)
        for method in node.body
        if isinstance(method, Function) and method.name == "__init__"
        if arguments(method) > ARGUMENTS and node.name not in PUBLIC
    }
    assert not wide, f"more than {ARGUMENTS} arguments; group them in a value: {wide}"


def test_names_are_the_words_of_the_field(sources: list[Source]) -> None:
    """CONTRIBUTING.md, "Names": one word for one thing. The simulator's `Reply` and `Answer` are public names."""
    found = defaultdict(list)
    for source in sources:
        if not source.path.startswith("simulator/"):
            for name, line in defined(source.tree):
                if OTHER_WORDS.search(name) and name not in ALLOWED_NAMES:
                    found[name].append(f"{source.path}:{line}")
    assert not found, f"say it in the words of the other names: {dict(found)}"


def test_heads_name_modules_that_exist(sources: list[Source]) -> None:
    """A head says what is not here, and where it is instead."""
    modules = {part for source in sources for part in (*Path(source.path).parts, Path(source.path).stem)} | {
        "chatscope"
    }
    wrong = {
        f"{source.path}: {name}"
        for source in sources
        for place in re.findall(r"\(([^()]*)\)", (ast.get_docstring(source.tree) or "").partition("Not here:")[2])
        for name in re.findall(r"`([a-z_][\w.]+)`", place)
        if not set(name.removesuffix(".py").split(".")) <= modules
    }
    assert not wrong, f"no such modules: {wrong}"


def test_no_two_classes_share_a_name(sources: list[Source]) -> None:
    places = defaultdict(list)
    for path, node in classes(sources):
        places[node.name].append(path)
    shared = {name: sorted(where) for name, where in places.items() if len(where) > 1}
    for name in shared.keys() & set(chatscope.simulator.__all__):
        # It shares no code with the client, so its public name for an object of the endpoint may be the same.
        if len(shared[name]) == 2 and shared[name][1].startswith("simulator/"):
            del shared[name]
    assert not shared, f"rename all but one: {shared}"


def test_the_top_of_the_package_is_short() -> None:
    files = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(files) <= FILES_AT_THE_TOP, files


def test_the_house_is_low() -> None:
    """Import-linter enforces the layers; here they are counted, and no room may be missing from them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    assert len(layers) <= FLOORS, layers
