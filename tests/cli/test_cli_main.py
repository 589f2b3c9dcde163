"""The entry point: version, help, and its message when something is not installed."""

from __future__ import annotations

import errno
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import chatscope as chatscope_package
from chatscope import __version__
from chatscope.cli import main

if TYPE_CHECKING:
    from tests.support.command import MakeOutput, Run


def test_version(chatscope: Run) -> None:
    ran = chatscope("--version")
    assert (ran.code, ran.out) == (0, f"chatscope, version {__version__}\n")


def test_an_output_that_is_full_is_reported(chatscope: Run, output: MakeOutput) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    output("chatscope", full)
    ran = chatscope("--help")
    assert (ran.code, ran.err) == (1, f"Error: [Errno {errno.ENOSPC}] No space left on device\n")


def test_python_m_chatscope_is_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["chatscope", "--version"])
    with pytest.raises(SystemExit) as ended:
        # By its path: `run_module` fails for packages that pytest has imported for their plugin.
        runpy.run_path(str(Path(chatscope_package.__file__).with_name("__main__.py")), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"chatscope, version {__version__}\n"


def test_help_lists_the_commands_and_says_where_the_key_comes_from(chatscope: Run) -> None:
    ran = chatscope("--help")
    assert ran.code == 0
    commands = [line.split()[0] for line in ran.out.partition("Commands:")[2].splitlines() if line]
    assert commands == ["ask", "batch", "demo", "load", "models", "simulator"]
    ran = chatscope("ask", "--help")
    assert ran.code == 0
    assert "The API key comes only from OPENAI_API_KEY." in ran.out
    assert "\n    130  Ctrl-C, 143 SIGTERM; the connection is closed\n" in ran.out


def test_an_unknown_command_exits_2(chatscope: Run) -> None:
    ran = chatscope("aks")
    assert (ran.code, ran.out) == (2, "")
    assert "aks" in ran.err


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_extra_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in list(sys.modules):
        if name.startswith("chatscope.cli.") or name.partition(".")[0] == missing:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["ask", "hi"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "pip install 'chatscope[cli]'" in err


def test_another_missing_module_is_not_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chatscope.cli.commands", None)
    with pytest.raises(ModuleNotFoundError, match="commands"):
        main(["ask", "hi"])


def test_ctrl_c_during_the_imports_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("chatscope.cli.commands.run", interrupted)
    assert main(["ask", "hi"]) == 130


@pytest.mark.parametrize(
    ("missing", "arguments", "remedy"),
    [
        ("trio", ("demo", "--backend", "trio"), "pip install 'chatscope[trio]'"),
        ("uvloop", ("ask", "hi", "--backend", "uvloop"), "pip install uvloop"),
    ],
)
def test_a_missing_loop_says_how_to_install_it(
    chatscope: Run, monkeypatch: pytest.MonkeyPatch, missing: str, arguments: tuple[str, ...], remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    ran = chatscope(*arguments)
    assert (ran.code, ran.out) == (1, "")
    assert remedy in ran.err
