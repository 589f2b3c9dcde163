"""The checks, each in its own environment: ``nox -f .ci/noxfile.py --list``.

A session only chooses an interpreter and a command. pyproject.toml configures the checks.
"""

# ruff: noqa: INP001  # nox loads this file by its path; it is not in a package

from __future__ import annotations

import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent.parent

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|venv"
BROWSER_TESTS = ("tests/examples/test_examples_streaming_browser.py", "tests/load/test_load_pages_browser.py")

nox.options.sessions = ["lint", "types", "imports", "docs", "tests"]


def install(session: nox.Session, extras: str) -> None:
    """Install chatscope with extras, and change to the root: nox starts in this folder."""
    session.chdir(ROOT)
    session.install("-e", f".[{extras}]")


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """The test suite against the wheel, as users install it; arguments after ``--`` go to pytest."""
    session.chdir(ROOT)
    session.install("hatchling>=1.27")
    folder = session.create_tmp()
    session.run("python", "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    (wheel,) = Path(folder).glob("chatscope-*.whl")
    session.install(f"{wheel}[test]")
    # Not in the session's own folder: the path of a Unix socket may have 107 bytes at most (unix(7)).
    short = {"TMPDIR": tempfile.gettempdir()}
    session.run("python", "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", *session.posargs, env=short)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Both type checkers, on the folders that pyproject.toml lists."""
    install(session, "dev")
    session.run("mypy")
    session.run("pyright")


@nox.session
def imports(session: nox.Session) -> None:
    """The layer contracts."""
    install(session, "lint,test")
    session.run("lint-imports", "--no-cache")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, built from scratch. Any warning of Sphinx fails it, such as a broken reference."""
    install(session, "docs")
    session.run("sphinx-build", "-q", "-W", "-n", "--keep-going", "-E", "docs", session.create_tmp())


@nox.session
def browser(session: nox.Session) -> None:
    """The tests that need a browser, which the extra `test` leaves out. They skip themselves where there is none."""
    install(session, "test,browser")
    session.run("python", "-m", "pytest", "-q", *BROWSER_TESTS)


@nox.session
def ray(session: nox.Session) -> None:
    """The tests on a Ray cluster of several nodes on this machine, and other tests that need packages beyond `test`.

    The other sessions skip them. Ray Data brings Arrow and pandas. If structlog is installed, stamina logs with it.
    """
    session.chdir(ROOT)
    session.install("-e", ".[ray,test]", "structlog>=25")
    short = {"TMPDIR": tempfile.gettempdir(), "PYTHONPATH": str(ROOT)}  # Ray's sockets have long names, too
    exported = "tests/cli/test_cli_batch.py::test_an_export_is_read_by_others"
    for selected in (  # the first two start clusters of their own
        ["tests/ray"],
        ["tests/test_documents.py", "-k", "distributed"],
        ["tests/batch/test_batch_readers.py", "tests/interop/test_batch_files.py", exported],
        ["tests/limits/test_limits_retry.py", "-k", "structlog"],
    ):
        session.run("python", "-m", "pytest", "-q", "-n", "0", "--durations=5", *selected, env=short)


@nox.session
def corpus(session: nox.Session) -> None:
    """The recorded streams and event-stream cases, if they are beside the repository."""
    folder = ROOT.parent / "shared" / "corpus"
    if not folder.is_dir():
        session.skip("no corpus beside the repository")
    install(session, "trio")
    session.run("python", str(folder / "check.py"), "sse", str(folder / "sse_cases.json"))
    for streams in sorted(folder.glob("wire*")):
        session.run("python", str(folder / "check.py"), "wire", str(streams))
