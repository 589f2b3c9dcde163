"""Every Python block of the README and the guides runs against a simulator, exactly as printed.

A block is a whole program, or a module of tests, which pytest runs. A block of type `text` that directly follows a
program is exactly what the program prints.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from anyio.from_thread import start_blocking_portal

from chatscope.cli.commands import chatscope
from chatscope.cli.demo import SCENES
from chatscope.simulator import simulator

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
GUIDES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)

TESTS = re.compile(r"^(async )?def test_", re.MULTILINE)
NOT_EVERYWHERE = ("celery", "django", "ray")
"""Large packages that the extra `test` installs; the nox session `ray` has Ray. Elsewhere their blocks are skipped, and
say so."""
WITHOUT_CODE = {"architecture", "changelog", "command_line", "contributing", "examples", "performance", "stability"}
MAX_LINES = 190
"""Readers finish a guide of this length."""


def blocks() -> Iterator[ParameterSet]:
    """Yield the blocks with their document and line."""
    for document in (README, *GUIDES):
        text = document.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("code"))
            yield pytest.param(document, line, match["code"], match["output"], id=f"{document.name}:{line + 1}")


BLOCKS = list(blocks())


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(simulator()) as url:
        yield url


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Undo what a program does to the root logger: Celery's worker sets its level, and replaces its handlers."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.slow
def test_the_blocks_of_tests_pass(tmp_path: Path) -> None:
    """As their readers run them: in a separate project, each a module."""
    modules = [block for block in BLOCKS if TESTS.search(str(block.values[2]))]
    assert len(modules) >= 5
    for number, block in enumerate(modules):
        (tmp_path / f"test_block_{number}.py").write_text(f"# {block.id}\n{block.values[2]}", encoding="utf-8")
    options = ["-q", "-W", "error", "-o", "anyio_mode=auto", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    # This run's options may measure coverage, into a file that the blocks must not write.
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("document", "line", "code", "output"), [block for block in BLOCKS if not TESTS.search(str(block.values[2]))]
)
def test_a_block_runs(
    document: Path,
    line: int,
    code: str,
    output: str | None,
    base_url: str,
    own_logging: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for package in NOT_EVERYWHERE:
        if f"import {package}\n" in code or f"from {package}" in code:
            pytest.importorskip(package, reason=f"{package} is not installed")
    if "import ray\n" in code:
        warnings.simplefilter("default")  # Ray's own are not ours to mend
    monkeypatch.setenv("OPENAI_API_KEY", "any-key")
    monkeypatch.setenv("OPENAI_BASE_URL", base_url)
    # The empty lines make a traceback name the line of the document.
    exec(compile("\n" * line + code, str(document), "exec"), {"__name__": "__main__"})
    if output is not None:
        assert capsys.readouterr().out == output


def test_there_are_blocks() -> None:
    counts = Counter(block.values[0] for block in BLOCKS)
    assert counts[README] >= 6
    assert all(counts[guide] for guide in GUIDES if guide.stem not in WITHOUT_CODE)


def test_the_guides_are_short() -> None:
    lengths = {guide.name: guide.read_text(encoding="utf-8").count("\n") for guide in GUIDES if guide.stem != "index"}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_the_readme_stands_alone() -> None:
    """On a package index there is no repository beside it: links must be absolute."""
    assert re.findall(r"\]\((?!https?:)([^)]+)", README.read_text(encoding="utf-8")) == []


def test_what_the_documents_name_exists() -> None:
    # Sphinx checks the links between guides when it builds the site.
    readme = README.read_text(encoding="utf-8")
    guides = re.findall(r"`(\w+)`", readme[readme.index("## Guides") : readme.index("## The command line")])
    assert [name for name in guides if name != "docs" and not (ROOT / "docs" / f"{name}.md").exists()] == []
    links = re.findall(r"\]\((?!https?:)([^)#]+)", CONTRIBUTING.read_text(encoding="utf-8"))
    named = re.findall(r"`((?:docs/)?[\w]+\.md)`", readme)
    examples = {
        path for guide in GUIDES for path in re.findall(r"`(examples/[^`]+)`", guide.read_text(encoding="utf-8"))
    }
    assert guides
    assert links
    assert named
    assert examples
    assert [path for path in (*links, *named, *sorted(examples)) if not (ROOT / path).exists()] == []


def test_the_first_page_leads_to_every_guide() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(\w+)$", index, re.MULTILINE)
    assert sorted(listed) == sorted(guide.stem for guide in GUIDES if guide.stem != "index")
    cards = re.findall(r"^:link: (\w+)$", index, re.MULTILINE)
    assert len(cards) >= 12
    assert set(cards) <= set(listed)


def test_the_picture_of_the_first_page_shows_the_demonstration() -> None:
    picture = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")
    assert [scene.label for scene in SCENES if scene.label not in picture] == []
    assert set(re.findall(r"https?://([^/\"\s]+)", picture)) <= {"www.w3.org", "www.textualize.io"}


def test_the_command_lines_page_is_generated_from_the_commands() -> None:
    page = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    assert "```{command-help}\n" in page
    commands = {
        command.lstrip("$ ").split(" ")[0] for command in re.findall(r"^\$ chatscope (.+)$", page, re.MULTILINE)
    }
    assert commands <= set(chatscope.commands)


def test_the_two_commands_of_the_readme_are_one_line_each() -> None:
    consoles = re.findall(r"^```console\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert [block.count("\n") for block in consoles] == [1, 1]
    assert "chatscope demo" in consoles[0]
    assert "pytest" in consoles[1]


def test_code_and_tests_cite_only_pages_that_exist() -> None:
    cited = {
        page: path.name
        for folder in ("src", "tests", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
        for page in re.findall(r"[\w./-]+\.md\b", path.read_text(encoding="utf-8"))
    }
    assert cited
    missing = {page for page in cited if not (ROOT / page).exists() and not (ROOT / "docs" / page).exists()}
    assert {page: cited[page] for page in missing} == {}
