"""Fixtures for telemetry: OpenTelemetry in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("opentelemetry.sdk", reason="what is reported is read back with it")

from tests.support.recorder import Recorder


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.tracer_provider.shutdown()
    made.meter_provider.shutdown()
