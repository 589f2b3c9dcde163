"""The manifest: the settings and the input of an output."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import msgspec

from chatscope.batch.errors import JournalError
from chatscope.batch.journal import ERRORS_ENDING, Paths, check_regular
from chatscope.batch.options import BatchOptions
from chatscope.batch.replacing import as_utf8, write_durably
from chatscope.version import __version__

VERSION: Final = 1
"""The version of the layout of the files beside the output. An incompatible layout gets another number."""


class Manifest(msgspec.Struct, kw_only=True):
    """What is read again of a manifest."""

    version: int = 0
    settings: dict[str, Any] = {}
    earlier_settings: list[dict[str, Any]] = []
    input: dict[str, Any] = {}
    output: str | None = None


_decode: Final = msgspec.json.Decoder(Manifest).decode


def read_manifest(paths: Paths) -> Manifest | None:
    """Return the manifest of an output, or `None` if there is none.

    Raises:
        JournalError: it is not a file, cannot be read, or another version wrote it.
    """
    check_regular(paths.manifest)
    try:
        recorded = _decode(paths.manifest.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise JournalError(f"{paths.manifest}: cannot be read: {error}") from error
    if recorded.version != VERSION:
        raise JournalError(f"{paths.manifest}: written by another version of chatscope; use another output")
    return recorded


def manifest_of(paths: Paths) -> Manifest:
    """Return the manifest of an output, or an empty one: its outcomes can be read without it."""
    try:
        return read_manifest(paths) or Manifest()
    except JournalError:
        return Manifest()


def settings_of(options: BatchOptions, model: str, base_url: str) -> dict[str, Any]:
    """Return the settings that change responses, for the manifest, without a password in the address."""
    return options.settings() | {"model": options.model or model, "base_url": _address(base_url)}


def _address(base_url: str) -> str:
    """Return an address in the form in which equal ones are equal, without user, password and query."""
    scheme, separator, rest = base_url.partition("://")
    host, slash, path = rest.partition("?")[0].rstrip("/").partition("/")
    return f"{scheme.lower()}{separator}{host.rpartition('@')[2].lower()}{slash}{path}"


def check_owner(paths: Paths) -> None:
    """Refuse an output whose folder and failures belong to another output: `o`, `o.json` and `o.jsonl` share them.

    Raises:
        JournalError: they belong to another output that still exists; or the manifest cannot be read.
    """
    owner = _owner(paths, read_manifest(paths))
    if owner is not None and owner.name != as_utf8(paths.output.name):
        raise JournalError(
            f"{paths.output}: {paths.meta} and {paths.errors} belong to {owner.name}; give this output another name"
        )
    name = paths.output.name
    stem = name.removesuffix(ERRORS_ENDING)
    for other in map(Paths, (paths.errors, *([paths.output.with_name(stem)] if stem not in {"", name} else []))):
        owner = _owner(other, manifest_of(other))
        if owner is not None and (owner == paths.errors or Paths(owner).errors == paths.output):
            raise JournalError(
                f"{paths.output}: it would share a file of failures with {owner.name}; give this output another name"
            )


def _owner(paths: Paths, manifest: Manifest | None) -> Path | None:
    """Return the output to which the folder beside an output belongs by its manifest, if it still exists."""
    name = None if manifest is None else manifest.output
    owner = None if name is None else paths.output.with_name(name)
    return owner if owner is not None and owner.exists() else None


def check_manifest(paths: Paths, settings: dict[str, Any], *, new_settings: bool) -> list[dict[str, Any]]:
    """Compare the settings with those of the latest run; return the settings under which earlier lines were written.

    Raises:
        JournalError: the manifest cannot be read, or a setting that changes responses differs without `new_settings`.
    """
    recorded = read_manifest(paths)
    if recorded is None:
        return []
    earlier, history = recorded.settings, recorded.earlier_settings
    now = msgspec.to_builtins(settings, enc_hook=str)
    changed = sorted(name for name in {*earlier, *now} if earlier.get(name) != now.get(name))
    if changed and not new_settings:
        name = changed[0]
        raise JournalError(
            f"{name} was {earlier.get(name)!r} when this output was begun, and is {now.get(name)!r} now."
            " To resume anyway, pass --new-settings, with --changed=keep to keep what is recorded or"
            " --changed=rerun to send it again"
        )
    if changed:
        history.append({"until": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "settings": earlier})
    return history


def write_manifest(paths: Paths, settings: dict[str, Any], history: list[dict[str, Any]], source: str | None) -> None:
    """Write the manifest. Whatever happens meanwhile, the file is either unchanged or complete.

    Raises:
        OSError: the disk is full, or failed.
    """
    described: dict[str, Any] = {"path": source}  # nothing for an iterable
    if source not in {None, "-"} and (path := Path(str(source))).is_file():
        status = path.stat()
        described |= {"path": as_utf8(str(path.resolve())), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    content = {
        "version": VERSION,
        "chatscope": __version__,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "settings": settings,
        "earlier_settings": history,
        "input": described,
        "output": as_utf8(paths.output.name),
    }
    write_durably(paths.manifest, msgspec.json.format(msgspec.json.encode(content, enc_hook=str)) + b"\n")
