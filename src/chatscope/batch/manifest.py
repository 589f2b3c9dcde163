"""The manifest: which settings and which input an output belongs to."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import msgspec

from chatscope.batch.errors import JournalError
from chatscope.batch.journal import Paths, write_durably
from chatscope.version import __version__

VERSION: Final = 1
"""The layout of the files beside the output. A later version that cannot be continued gets another number."""


def check_manifest(paths: Paths, settings: dict[str, Any], *, new_settings: bool) -> list[str]:
    """Compare the settings with those of the run that began this output; return the names of those that changed.

    Raises:
        JournalError: the manifest cannot be read, or a setting that changes answers differs and `new_settings` is off.
    """
    try:
        recorded = msgspec.json.decode(paths.manifest.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        raise JournalError(f"{paths.manifest}: cannot be read: {error}") from error
    if not isinstance(recorded, dict) or recorded.get("version") != VERSION:
        raise JournalError(f"{paths.manifest}: written by another version of chatscope; use another output")
    earlier = recorded.get("settings", {})
    now = msgspec.to_builtins(settings, enc_hook=str)
    changed = sorted(name for name in {*earlier, *now} if earlier.get(name) != now.get(name))
    if changed and not new_settings:
        name = changed[0]
        raise JournalError(
            f"{name} was {earlier.get(name)!r} when this output was begun, and is {now.get(name)!r} now."
            " To go on all the same, say --new-settings; rows that are recorded stay as they are"
        )
    return changed


def write_manifest(paths: Paths, settings: dict[str, Any], source: str) -> None:
    """Write the manifest. It is there as before, or whole, whatever happens meanwhile.

    Raises:
        OSError: the disk is full, or failed.
    """
    described: dict[str, Any] = {"path": source}
    path = Path(source)
    if source != "-" and path.is_file():
        status = path.stat()
        described |= {"path": str(path.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    content = {
        "version": VERSION,
        "chatscope": __version__,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "settings": settings,
        "input": described,
    }
    write_durably(paths.manifest, msgspec.json.format(msgspec.json.encode(content, enc_hook=str)) + b"\n")
