"""The generator of prices.json, and a price table made from the genai-prices that is installed."""

from __future__ import annotations

import importlib.util
from datetime import date
from pathlib import Path
from types import ModuleType

import pytest

from chatscope.pricing import PriceTable

SCRIPT = Path(__file__).parents[2] / ".ci" / "make_prices.py"


@pytest.fixture(scope="session")
def make_prices() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("make_prices", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def table(make_prices: ModuleType) -> PriceTable:
    """What the script makes of the installed genai-prices, so that the two are of one version."""
    return PriceTable.from_json(make_prices.render(date(2026, 1, 1)))
