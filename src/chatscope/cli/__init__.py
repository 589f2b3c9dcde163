"""The `chatscope` command.

Here: the entry point, and its message if the extra `cli` is not installed. Not here: the commands and their options
(`commands`), what they do (`ask`, `demo`), how they print (`views`, `terminal`), and the event loop (`loop`). Only
`__main__` imports this package.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: the arguments after the command's name; `None` reads them from `sys.argv`.
    """
    try:
        # Imported here so that a user without the extra sees a sentence instead of a traceback.
        from chatscope.cli.commands import run  # noqa: PLC0415 - see above

        return run(arguments)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in {"click", "rich"}:
            raise
        sys.stderr.write("chatscope: the command line is an extra; install it with: pip install 'chatscope[cli]'\n")
        return 1
    except KeyboardInterrupt:  # during the import
        return 130
