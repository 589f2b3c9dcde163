"""The command `chatscope`: its entry point, and what it says where its extra is not installed.

`commands` is the command line itself, `ask` and `demo` do the work, `views` and `terminal` show it, `loop` runs it.
Nothing in the rest of the package but `__main__` imports any of it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: what follows the command's name; `None` takes it from `sys.argv`.
    """
    try:
        # Imported here, because whoever installed chatscope without the extra should read a sentence, not a traceback.
        from chatscope.cli.commands import run  # noqa: PLC0415 - as said

        return run(arguments)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in {"click", "rich"}:
            raise
        sys.stderr.write("chatscope: the command line is an extra; install it with: pip install 'chatscope[cli]'\n")
        return 1
    except KeyboardInterrupt:  # while it was still importing
        return 130
