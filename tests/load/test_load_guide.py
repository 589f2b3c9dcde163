"""The guide: its tables say what the code says, and its picture is drawn by its script."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from tests.support.load_reports import made_report

from chatscope.load import FORMULAS, verdict
from chatscope.load.pages.report_page import TOOLS
from chatscope.load.search import SEARCH_TOLERANCE

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDE = (DOCS / "load.md").read_text(encoding="utf-8")


def test_the_table_of_names_is_that_of_the_formulas() -> None:
    for name, formula in FORMULAS.items():
        cells = [formula.also_called.get(tool, "") for tool in TOOLS]
        line = " | ".join([f"`{name}`", formula.text, *cells])
        shown = re.sub(r"\s+", " ", f"| {line} |").replace("max_concurrency", "`--max-concurrency`")
        assert shown in GUIDE, shown
    assert f"| name | formula | {' | '.join(TOOLS)} |" in GUIDE


def test_the_limits_of_the_verdict_are_those_of_the_code() -> None:
    shares = {"CPU time": verdict.CPU_LIMITS, "chunks read": verdict.SHARED_READ_LIMITS, "garbage": verdict.GC_LIMITS}
    for text, (suspect, invalid) in shares.items():
        assert re.search(rf"^\| {text}.* \| {suspect:.0%} \| {invalid:.0%} \|$".replace("%", " %"), GUIDE, re.MULTILINE)
    times = {
        "requests sent late": verdict.LATENESS_LIMITS,
        "event loop late": verdict.LAG_LIMITS,
        "stamps later": verdict.READ_LAG_LIMITS,
    }
    for text, (suspect, invalid) in times.items():
        pattern = rf"^\| {text}.* \| {suspect * 1e3:.0f} ms.* \| {invalid * 1e3:.0f} ms \|$"
        assert re.search(pattern, GUIDE, re.MULTILINE), text
    assert f"until that is {SEARCH_TOLERANCE:.0%} wide".replace("%", " %") in GUIDE


def test_the_picture_of_coordinated_omission_is_what_its_script_draws() -> None:
    script = runpy.run_path(str(DOCS / "draw_omission.py"))
    picture = script["draw"](made_report(loads=(20,), failed=0))
    assert picture.count("h0") == 2 * (20 * 8 - 1), "a dot for each request and moment; one was given up"
    kept = (DOCS / "omission.svg").read_text(encoding="utf-8")
    due, sent = (int(number.replace(",", "")) for number in re.findall(r"p99 ([\d,]+) ms", kept))
    assert due > 1500, "the stall lasts 2 s"
    assert sent < 200
    assert script["STYLE"] in kept
