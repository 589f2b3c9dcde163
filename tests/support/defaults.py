"""The prompt, the response, the timeouts and the retry policy of tests that need nothing else."""

from __future__ import annotations

from chatscope import RetryPolicy, Timeouts
from chatscope.simulator import Reply

MODEL = "gpt-4o-mini"
PROMPT = "Say hello"

TEXT = "Hello, wörld."
"""What is said where a row needs nothing else: the tokens "Hello", ",", " wörld" and "."."""

WELL = Reply(TEXT)
"""What the simulator answers where the fault is elsewhere."""

PATIENT = Timeouts(read=30)
"""For rows in which nothing is silent: only a hang could exceed it."""

BRIEF = Timeouts(connect=0.2, read=0.2)
"""For rows in which the server is silent for ever, so that no haste of a busy machine changes the outcome: it is long
beside the microseconds that two ends in one process need to answer each other."""

RETRY = RetryPolicy(attempts=2, initial=0, jitter=0)
