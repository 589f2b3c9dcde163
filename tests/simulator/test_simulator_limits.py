"""The token buckets, exact in a time that is given: who is let in, what the headers say, what the 429 says."""

from __future__ import annotations

import math

import msgspec
from tests.support.tables import row

from chatscope.simulator.limits import Bucket, RateLimits, format_duration


def test_a_bucket_starts_full_and_refills() -> None:
    bucket = Bucket(60, now=100.0)
    assert bucket.wait_for(60, now=100.0) == 0
    bucket.take(60, now=100.0)
    assert bucket.wait_for(1, now=100.0) == 1.0
    assert bucket.wait_for(30, now=110.0) == 20.0
    assert bucket.wait_for(30, now=130.0) == 0
    assert bucket.level(now=1000.0) == 60  # and no more
    assert bucket.wait_for(61, now=1000.0) == math.inf


def test_waiting_the_exact_time_is_enough() -> None:
    bucket = Bucket(7, now=0.0)
    now = 0.0
    bucket.take(7, now)
    for _ in range(1000):
        now += bucket.wait_for(1, now)
        assert bucket.wait_for(1, now) == 0
        bucket.take(1, now)


def test_no_limits() -> None:
    limits = RateLimits(None, None, now=0.0)
    assert limits.admit(10**9, "m", now=0.0) is None
    assert limits.headers(now=0.0) == ()


def test_headers_and_refusals() -> None:
    limits = RateLimits(3, 1000, now=0.0)
    assert limits.admit(400, "m", now=0.0) is None
    assert dict(limits.headers(now=0.0)) == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "20s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "600",
        "x-ratelimit-reset-tokens": "24s",
    }
    refusal = limits.admit(700, "m", now=0.0)
    assert refusal is not None
    assert refusal.status == 429
    assert dict(refusal.headers) == {"content-type": "application/json", "retry-after": "6", "retry-after-ms": "6000"}
    assert msgspec.json.decode(refusal.content)["error"] == {
        "message": "Rate limit reached for m on tokens per min: Limit 1000, Used 400, Requested 700. "
        "Please try again in 6s.",
        "type": "tokens",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert dict(limits.headers(now=0.0))["x-ratelimit-remaining-requests"] == "2"  # it took nothing
    assert limits.admit(700, "m", now=6.0) is None


def test_the_limit_of_requests_comes_first() -> None:
    limits = RateLimits(1, 10, now=0.0)
    assert limits.admit(1, "m", now=0.0) is None
    refusal = limits.admit(1, "m", now=0.5)
    assert refusal is not None
    assert msgspec.json.decode(refusal.content)["error"]["type"] == "requests"
    assert dict(refusal.headers)["retry-after-ms"] == "59500"


def test_a_request_that_can_never_fit() -> None:
    refusal = RateLimits(None, 10, now=0.0).admit(11, "m", now=0.0)
    assert refusal is not None
    assert "retry-after" not in dict(refusal.headers)
    problem = msgspec.json.decode(refusal.content)["error"]
    assert problem["message"] == "Request too large for m on tokens per min: Limit 10, Requested 11."


def test_durations() -> None:
    rows: list[tuple[float, str]] = [
        (0, "0ms"),
        (0.0121, "13ms"),
        (0.012, "12ms"),
        (0.07, "70ms"),
        (0.9999, "1s"),
        (1.5, "1.5s"),
        (59.9995, "1m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (3723.25, "1h2m3.25s"),
    ]
    for seconds, text in rows:
        with row(seconds, text):
            assert format_duration(seconds) == text
