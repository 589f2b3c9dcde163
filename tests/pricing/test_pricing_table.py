"""The table that comes with the package: what it returns, when it is read, and that it is the generator's."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from datetime import UTC, date, datetime
from importlib.metadata import version
from types import ModuleType
from typing import Any

import msgspec
import pytest
from tests.support.tables import row

from chatscope.pricing import PriceTable
from chatscope.pricing.table import MAX_LOOKUPS
from chatscope.protocol.usage import Usage

OPENAI = "https://api.openai.com/v1"
MILLIONS = Usage(prompt_tokens=1_000_000, completion_tokens=1_000_000, total_tokens=2_000_000)
THOUSANDS = Usage(prompt_tokens=1_000, completion_tokens=1_000, total_tokens=2_000)


def test_the_file_is_what_the_script_makes(make_prices: ModuleType) -> None:
    text = make_prices.PRICES.read_text(encoding="utf-8")
    made_from = json.loads(text)["version"]
    if version("genai-prices") != made_from:
        pytest.skip(
            f"prices.json is made from genai-prices {made_from}, installed is {version('genai-prices')}: "
            "to move on, run python .ci/make_prices.py"
        )
    assert text == make_prices.render(date.fromisoformat(json.loads(text)["date"]))


def test_the_script_leaves_an_up_to_date_file_alone(
    make_prices: ModuleType, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[list[str]] = [[], ["--check"]]
    for arguments in rows:
        with row(arguments):
            file = tmp_path / "prices.json"
            file.write_text(make_prices.render(date(2020, 2, 2)), encoding="utf-8")
            file.chmod(0o400)
            monkeypatch.setattr(make_prices, "PRICES", file)
            monkeypatch.setattr(sys, "argv", ["make_prices.py", *arguments])
            before = file.read_text(encoding="utf-8")
            assert make_prices.main() == 0
            assert file.read_text(encoding="utf-8") == before


def test_the_script_checks_and_writes(
    make_prices: ModuleType, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prices.json"
    monkeypatch.setattr(make_prices, "PRICES", file)
    monkeypatch.setattr(sys, "argv", ["make_prices.py", "--check"])
    assert make_prices.main() == 1
    assert not file.exists()
    assert f"is not what genai-prices {version('genai-prices')} gives" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["make_prices.py"])
    assert make_prices.main() == 0
    assert file.read_text(encoding="utf-8") == make_prices.render(datetime.now(UTC).date())


def test_the_file_says_where_it_is_from(make_prices: ModuleType) -> None:
    snapshot = PriceTable.default().snapshot
    assert snapshot.source == "genai-prices"
    assert snapshot.date >= date(2026, 11, 22)
    assert "MIT" in snapshot.notice
    lines = make_prices.PRICES.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith('{"id":') for line in lines) == len(snapshot.providers) + sum(
        len(provider.models) for provider in snapshot.providers
    )


def test_it_is_read_at_the_first_look_up_and_only_then() -> None:
    script = """
import sys
reads = []
def watch(event, args):
    if event == "open" and "prices.json" in str(args[0]):
        reads.append(args[0])
sys.addaudithook(watch)
import chatscope
from chatscope.pricing import PriceTable, PriceQuery, resolve
from chatscope.protocol.usage import Usage
pricer = resolve({})
print(len(reads))
for _ in range(2):
    print(pricer(PriceQuery(model="gpt-4o-mini", usage=Usage(prompt_tokens=1000))), len(reads))
print(sorted({"genai_prices", "pydantic"} & sys.modules.keys()))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["0", "0.00015 1", "0.00015 1", "[]"]


def test_openai_models_by_name() -> None:
    rows: list[tuple[str, float | None]] = [
        ("gpt-4o", 12.5),
        ("gpt-4o-2024-08-06", 12.5),
        ("gpt-4o-2024-05-13", 20),
        ("gpt-4o-mini", 0.75),
        ("GPT-4o-Mini", 0.75),
        ("gpt-4o-mini-2024-07-18", 0.75),
        ("gpt-4o-mini-20240718", 0.75),
        ("ft:gpt-4o-mini-2024-07-18:my-org::abc123", 1.5),
        ("ft:gpt-4o-2024-08-06:my-org:suffix:abc123", 18.75),
        ("gpt-4o-mini-20240631", None),  # no such day, so no such model
        ("gpt-4o-mimi", None),
        ("moderation", None),  # in the source, without a price
        ("text-embedding-3-small", None),  # no price for what it writes: not a chat model
        ("", None),
    ]
    for model, dollars in rows:
        with row(model, dollars):
            found = PriceTable.default().cost(MILLIONS, model, base_url=OPENAI)
            assert found == (None if dollars is None else pytest.approx(dollars, rel=1e-12))


def test_a_long_prompt_raises_the_price_of_all_its_tokens() -> None:
    table = PriceTable.default()
    up_to = Usage(prompt_tokens=272_000, completion_tokens=1000, total_tokens=273_000)
    beyond = Usage(prompt_tokens=272_001, completion_tokens=1000, total_tokens=273_001)
    assert table.cost(up_to, "gpt-5.4", base_url=OPENAI) == pytest.approx(272_000 * 2.5e-6 + 0.015)
    assert table.cost(beyond, "gpt-5.4", base_url=OPENAI) == pytest.approx(272_001 * 5e-6 + 0.0225)


def test_service_tiers_are_priced_as_far_as_they_are_known() -> None:
    rows: list[tuple[str | None, float | None]] = [
        (None, 11.25),
        ("auto", 11.25),
        ("default", 11.25),
        ("standard", 11.25),
        ("on_demand", 11.25),
        ("flex", 5.625),
        ("priority", 22.5),
        ("fast", 22.5),
        ("scale", None),
        ("batch", None),
        ("Priority", None),
        ("", None),
    ]
    for tier, dollars in rows:
        with row(tier, dollars):
            when = datetime(2026, 11, 1, tzinfo=UTC)
            found = PriceTable.default().cost(MILLIONS, "gpt-5", base_url=OPENAI, service_tier=tier, when=when)
            assert found == (None if dollars is None else pytest.approx(dollars, rel=1e-12))


def test_the_price_follows_the_clock() -> None:
    def at(hour: int, minute: int) -> float | None:
        when = datetime(2026, 11, 1, hour, minute, tzinfo=UTC)
        return PriceTable.default().cost(MILLIONS, "deepseek-v4-pro", base_url="https://api.deepseek.com", when=when)

    assert [at(0, 59), at(1, 0), at(3, 59), at(4, 0), at(6, 0), at(10, 0)] == pytest.approx(
        [2.64, 5.28, 5.28, 2.64, 5.28, 2.64]
    )


def test_hours_may_span_midnight() -> None:
    night = {"price": [1, 0], "daily": ["22:00:00", "02:00:00"]}
    table = tiny_table(models=[{"id": "m", "prices": [{"price": [2, 0]}, night]}])

    def at(hour: int) -> float | None:
        return table.cost(MILLIONS, "m", base_url="https://a.test", when=datetime(2026, 1, 1, hour, tzinfo=UTC))

    assert [at(21), at(22), at(23), at(0), at(1), at(2)] == [2, 1, 1, 1, 1, 2]


def test_the_url_decides_whose_price_it_is() -> None:
    table = PriceTable.default()
    at_openrouter = table.cost(THOUSANDS, "openai/gpt-4o-mini", base_url="https://openrouter.ai/api/v1")
    assert at_openrouter == pytest.approx(0.00075)
    assert table.cost(THOUSANDS, "gpt-4o-mini", base_url="https://api.groq.com/openai/v1") is None
    for anywhere in (None, "http://localhost:8000/v1", "https://proxy.example.com"):
        assert table.cost(THOUSANDS, "gpt-4o-mini", base_url=anywhere) == pytest.approx(0.00075)
        assert table.cost(THOUSANDS, "my-own-model", base_url=anywhere) is None


def test_free_models_are_free_and_models_without_a_price_have_none() -> None:
    table = PriceTable.default()
    openrouter = "https://openrouter.ai/api/v1"
    assert table.cost(THOUSANDS, "openai/gpt-oss-20b:free", base_url=openrouter) == 0
    assert table.cost(THOUSANDS, "openai/gpt-oss-20b:free", base_url=openrouter, service_tier="flex") is None
    assert table.cost(THOUSANDS, "stealth/crouton-alpha", base_url=openrouter) is None


def test_a_reseller_has_the_standard_price_only() -> None:
    table = PriceTable.default()
    azure = "https://mine.openai.azure.com/openai/v1"
    assert table.cost(MILLIONS, "gpt-5-2025-08-07", base_url=azure) is not None
    assert table.cost(MILLIONS, "gpt-5-2025-08-07", base_url=azure, service_tier="flex") is None


def test_a_price_may_be_for_some_hours_from_some_day_on() -> None:
    happy_hour = {"price": [1, 0], "since": "2026-05-01", "daily": ["17:00:00", "18:00:00"]}
    table = tiny_table(models=[{"id": "m", "prices": [{"price": [2, 0]}, happy_hour]}])
    moments = [
        datetime(2026, 4, 30, 17, tzinfo=UTC),
        *(datetime(2026, 5, 1, hour, tzinfo=UTC) for hour in (16, 17, 18)),
    ]
    assert [table.cost(MILLIONS, "m", base_url="https://a.test", when=when) for when in moments] == [2, 2, 1, 2]


def test_before_its_first_day_a_price_is_unknown() -> None:
    table = tiny_table(models=[{"id": "m", "prices": [{"price": [1, 0], "since": "2026-05-01"}]}])
    days = [datetime(2026, 4, 30, 23, 59), datetime(2026, 5, 1)]  # noqa: DTZ001  # naive moments are UTC here
    assert [table.cost(MILLIONS, "m", base_url="https://a.test", when=day) for day in days] == [None, 1]


def test_the_memory_of_look_ups_is_bounded() -> None:
    table = tiny_table(models=[{"id": "m", "prices": [{"price": [1, 0]}]}])
    for number in range(MAX_LOOKUPS + 10):
        assert table.cost(MILLIONS, f"unknown-{number}") is None
    assert table._find_periods.cache_info().currsize == MAX_LOOKUPS
    assert table.cost(MILLIONS, "m", base_url="https://a.test") == 1
    hits = table._find_periods.cache_info().hits
    assert table.cost(MILLIONS, "m", base_url="https://a.test") == 1
    assert table._find_periods.cache_info().hits == hits + 1


def test_another_file_is_refused() -> None:
    rows: list[list[Any]] = [
        [{"id": "m", "prices": [{"price": [1]}]}],
        [{"id": "m", "prices": [{"price": [-1, 1]}]}],
        [{"id": "m", "prices": [{"cost": [1, 1]}]}],
        [{"match": ["m"]}],
    ]
    for models in rows:
        with row(models), pytest.raises(msgspec.ValidationError):
            tiny_table(models=models)


def tiny_table(models: list[Any]) -> PriceTable:
    provider = {"id": "a", "url": "https://a\\.test", "models": models}
    head = {"source": "made up", "version": "1", "date": "2026-01-01", "notice": ""}
    return PriceTable.from_json(json.dumps({**head, "providers": [provider]}))


def test_the_garbage_collector_need_not_look_at_the_table() -> None:
    """It would look at all of its thousands of values again in each full pass."""

    def seen() -> int:
        for _ in range(2):
            gc.collect()  # sets inner tuples aside, then outer ones
        return len(gc.get_objects())

    before, data = seen(), msgspec.json.encode(PriceTable.default().snapshot)
    table = PriceTable.from_json(data)
    assert seen() - before < 100
    assert len(table.snapshot.providers) > 10
