"""Chat completions in cancel scopes.

The public names are those of `chatscope.public`. They are loaded when one is first asked for (PEP 562): a program that
only mentions the package, or only wants its version, does not wait for an HTTP library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chatscope.version import __version__ as __version__

if TYPE_CHECKING:
    from chatscope.public import *  # noqa: F403 - the names as type checkers see them


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module 'chatscope' has no attribute {name!r}")
    public = import_module("chatscope.public")
    if name not in public.__all__ and name != "__all__":
        raise AttributeError(f"module 'chatscope' has no attribute {name!r}")
    value = globals()[name] = getattr(public, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("chatscope.public").__all__})
