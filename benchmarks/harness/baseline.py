"""The package as it was at another commit, so that both can be measured side by side in one run."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.contenders import Entry
from benchmarks.harness.processes import ROOT

SEPARATOR: Final = "@"
"""Separates a contender's name from the commit at which it is measured."""


@contextmanager
def source_at(commit: str) -> Iterator[tuple[str, Path]]:
    """Extract the package's source at a commit while the block is open; yield the short hash and the folder.

    Raises:
        ValueError: this is not a repository, or it has no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        try:
            short = _git("rev-parse", "--short", "--verify", f"{commit}^{{commit}}").decode().strip()
            archive = _git("archive", "--format=tar", short, "src")
        except subprocess.CalledProcessError as error:
            raise ValueError(f"{commit}: {error.stderr.decode().strip()}") from None
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        yield short, Path(folder) / "src"


def with_baseline(entries: Sequence[Entry], commit: str, source: Path) -> list[Entry]:
    """Return the contenders. Each one that is this package is followed by its older version, at the commit."""
    together = []
    for entry in entries:
        together.append(entry)
        if entry.is_own:
            name = f"{entry.name}{SEPARATOR}{commit}"
            together.append(replace(entry, name=name, what=f"{entry.what}, at {commit}", source=str(source)))
    return together


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
