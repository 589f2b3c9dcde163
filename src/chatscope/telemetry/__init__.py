"""Telemetry: reports calls to OpenTelemetry (`pip install 'chatscope[otel]'`). Imported only when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chatscope.telemetry.otel import Telemetry as Telemetry

__all__ = ["Telemetry"]


def __getattr__(name: str) -> Any:
    if name != "Telemetry":
        raise AttributeError(f"module 'chatscope.telemetry' has no attribute {name!r}")
    try:
        value = globals()[name] = import_module("chatscope.telemetry.otel").Telemetry
    except ModuleNotFoundError as error:
        raise ImportError("telemetry= needs OpenTelemetry's API: pip install 'chatscope[otel]'") from error
    return value
