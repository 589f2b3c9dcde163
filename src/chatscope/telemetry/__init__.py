"""OpenTelemetry (`pip install 'chatscope[otel]'`), which `telemetry=` reports to. Imported only if asked for."""

try:
    import opentelemetry.metrics
    import opentelemetry.trace  # noqa: F401 - whether it is there
except ImportError as error:
    raise ImportError("telemetry= needs OpenTelemetry's API: pip install 'chatscope[otel]'") from error

from chatscope.telemetry.calls import Telemetry

__all__ = ["Telemetry"]
