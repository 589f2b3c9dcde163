"""Modules that an extra installs, imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from chatscope.batch.errors import InputError


def optional(module: str, extra: str) -> Any:
    """Import a module that an extra installs.

    Raises:
        InputError: it is not installed; the message names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f"this needs {module.partition('.')[0]}: pip install 'chatscope[{extra}]'") from error
