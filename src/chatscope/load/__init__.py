"""Measure a chat server, and judge whether the measurement can be trusted.

`run(plan)` runs a `LoadPlan` in the calling process and returns a `LoadReport`. `run_in_processes(plan)` does the same
in worker processes, like the command `chatscope load`.

Here: schedules, sending on time, records, the formulas, the verdict on the client. Not here: sending one request (the
client).
"""

from typing import TYPE_CHECKING

from chatscope import load_at_first_use

if TYPE_CHECKING:
    from chatscope.load.client_error import ClientError as ClientError
    from chatscope.load.comparison import Difference as Difference
    from chatscope.load.comparison import StageComparison as StageComparison
    from chatscope.load.comparison import compare as compare
    from chatscope.load.comparison import plan_differences as plan_differences
    from chatscope.load.distributions import Distribution as Distribution
    from chatscope.load.distributions import Percentile as Percentile
    from chatscope.load.metrics import FORMULAS as FORMULAS
    from chatscope.load.metrics import Formula as Formula
    from chatscope.load.metrics import StageSummary as StageSummary
    from chatscope.load.monitor import LoadMonitor as LoadMonitor
    from chatscope.load.monitor import LoadProgress as LoadProgress
    from chatscope.load.objectives import Objective as Objective
    from chatscope.load.objectives import ObjectiveResult as ObjectiveResult
    from chatscope.load.pages.comparison_page import comparison_page as comparison_page
    from chatscope.load.pages.report_page import report_page as report_page
    from chatscope.load.plan import LoadPlan as LoadPlan
    from chatscope.load.processes import run_in_processes as run_in_processes
    from chatscope.load.records import RequestError as RequestError
    from chatscope.load.records import RequestRecord as RequestRecord
    from chatscope.load.records import read_records as read_records
    from chatscope.load.report import LoadReport as LoadReport
    from chatscope.load.report import SearchResult as SearchResult
    from chatscope.load.report import StageReport as StageReport
    from chatscope.load.report import load_report as load_report
    from chatscope.load.run import run as run
    from chatscope.load.schedule import OpenLoop as OpenLoop
    from chatscope.load.self_test import measure_client_error as measure_client_error
    from chatscope.load.verdict import ClientEvidence as ClientEvidence
    from chatscope.load.verdict import Verdict as Verdict
    from chatscope.load.verdict import WorkerLoss as WorkerLoss
    from chatscope.load.workload import Length as Length
    from chatscope.load.workload import Workload as Workload

_HOMES = {
    "compare": "comparison",
    "plan_differences": "comparison",
    "StageComparison": "comparison",
    "Difference": "comparison",
    "run": "run",
    "run_in_processes": "processes",
    "load_report": "report",
    "SearchResult": "report",
    "StageReport": "report",
    "LoadReport": "report",
    "LoadProgress": "monitor",
    "LoadPlan": "plan",
    "comparison_page": "pages.comparison_page",
    "report_page": "pages.report_page",
    "LoadMonitor": "monitor",
    "FORMULAS": "metrics",
    "ClientError": "client_error",
    "ClientEvidence": "verdict",
    "measure_client_error": "self_test",
    "Distribution": "distributions",
    "Formula": "metrics",
    "Length": "workload",
    "Objective": "objectives",
    "ObjectiveResult": "objectives",
    "OpenLoop": "schedule",
    "Percentile": "distributions",
    "RequestError": "records",
    "RequestRecord": "records",
    "StageSummary": "metrics",
    "Verdict": "verdict",
    "WorkerLoss": "verdict",
    "Workload": "workload",
    "read_records": "records",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - one table says what is public  # pyright: ignore[reportUnsupportedDunderAll]

__getattr__, __dir__ = load_at_first_use(__name__, _HOMES)
