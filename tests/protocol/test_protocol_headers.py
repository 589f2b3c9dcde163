"""What headers mean: when to retry, and what is left. Values that make no sense are ignored."""

from __future__ import annotations

import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tables import each_row

from chatscope.protocol.headers import (
    RateLimitHeaders,
    ResponseHeaders,
    duration,
    has_plenty,
    rate_limits,
    request_id,
    retry_after,
    should_retry,
)

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def headers(**values: str) -> httpx.Headers:
    return httpx.Headers({name.replace("_", "-"): value for name, value in values.items()})


@each_row(
    ("value", "seconds"),
    [
        ("5", 5.0),
        ("0.25", 0.25),
        (" 5 ", 5.0),
        ("1e1", 10.0),
        ("300", 300.0),  # too long to be waited, but that is for the policy to say
        ("0", None),
        ("-1", None),
        ("-0.5", None),
        ("", None),
        ("   ", None),
        ("soon", None),
        ("5 seconds", None),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tuesday, 14-Nov-23 22:13:50 GMT", 30.0),  # the two older forms that RFC 9110 wants understood
        ("Tue Nov 14 22:13:50 2023", 30.0),
        ("Tue, 14 Nov 2023 23:13:50 +0100", 30.0),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30.0),
        ("Tue, 14 Nov 2023 22:13:20 GMT", None),
        ("Tue, 14 Nov 2023 22:13:10 GMT", None),
        ("Tue, 14 Nov 2023", None),
        ("Tue, 99 Nov 2023 22:13:50 GMT", None),
        ("Tue, 14 Nov 99999 22:13:50 GMT", None),
        ("Tue, 14 Nov 2023 22:13:50 +9999", None),
        ("2023-11-14T22:13:50Z", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after(headers(retry_after=value), NOW) == seconds
    # LiteLLM's proxy renames it.
    assert retry_after(headers(llm_provider_retry_after=value, unrelated="1"), NOW) is None
    assert retry_after(httpx.Headers({"llm_provider-retry-after": value}), NOW) == seconds


def test_a_date_without_a_zone_is_utc_wherever_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert retry_after(headers(retry_after="Tue Nov 14 22:13:50 2023"), NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@each_row(
    ("given_headers", "seconds"),
    [
        ({}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "0.5"}, 0.0005),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "nan", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "-5"}, None),
        ({"retry-after-ms": "0"}, None),
        ({"retry-after": "7", "llm_provider-retry-after": "9"}, 7.0),
        ({"Retry-After": "7"}, 7.0),
    ],
)
def test_which_header_counts(given_headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx.Headers(given_headers), NOW) == seconds


@each_row(
    ("value", "order"),
    [("true", True), ("false", False), ("True", True), (" FALSE ", False), ("yes", None), ("", None), ("1", None)],
)
def test_x_should_retry(value: str, order: bool | None) -> None:
    assert should_retry(headers(x_should_retry=value)) is order
    assert should_retry(headers()) is None


def test_request_id() -> None:
    assert request_id(headers(x_request_id="a", request_id="b", apim_request_id="c")) == "a"
    assert request_id(headers(request_id="b", apim_request_id="c")) == "b"
    assert request_id(headers(apim_request_id="c")) == "c"
    assert request_id(headers(x_request_id="", request_id="b")) == "b"
    assert request_id(headers()) is None


@each_row(
    ("text", "seconds"),
    [
        ("12ms", 0.012),
        ("6m0s", 360.0),
        ("1s", 1.0),
        ("1.5s", 1.5),
        ("1h2m3.5s", 3723.5),
        ("2d", 172800.0),
        ("1d1h", 90000.0),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("10ns", 1e-8),
        (" 12ms ", 0.012),
        ("60", 60.0),
        ("0", 0.0),
        ("0s", 0.0),
        ("0.5", 0.5),
        ("-1", None),
        ("-1s", None),
        ("", None),
        (None, None),
        ("soon", None),
        ("1m soon", None),
        ("1 m", None),
        ("s", None),
        ("1..5s", None),
        ("nan", None),
        ("9" * 400, None),
        ("9" * 400 + "s", None),
    ],
)
def test_durations(text: str | None, seconds: float | None) -> None:
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_as_the_endpoint_writes_them(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    expected = hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    assert duration(f"{hours}h{minutes}m{seconds}s{milliseconds}ms") == pytest.approx(expected)
    assert duration(f"{hours}h{minutes}m{seconds}.{milliseconds:03}s") == pytest.approx(expected)


def test_the_endpoint_s_own_limits() -> None:
    assert rate_limits(
        headers(
            x_ratelimit_limit_requests="60",
            x_ratelimit_remaining_requests="59",
            x_ratelimit_reset_requests="1s",
            x_ratelimit_limit_tokens="150000",
            x_ratelimit_remaining_tokens="149984",
            x_ratelimit_reset_tokens="6m0s",
        )
    ) == RateLimitHeaders(60, 59, 1.0, 150000, 149984, 360.0)


def test_mistral_s_names() -> None:
    assert rate_limits(
        headers(
            x_ratelimit_limit_req_minute="60",
            x_ratelimit_remaining_req_minute="0",
            x_ratelimit_limit_tokens_minute="500000",
            x_ratelimit_remaining_tokens_minute="499000",
        )
    ) == RateLimitHeaders(limit_requests=60, remaining_requests=0, limit_tokens=500000, remaining_tokens=499000)


def test_azure_s_meaningless_values() -> None:
    assert rate_limits(headers(x_ratelimit_limit_requests="-1", x_ratelimit_limit_tokens="0")) is None
    assert rate_limits(
        headers(
            x_ratelimit_limit_requests="0",
            x_ratelimit_remaining_requests="-1",
            x_ratelimit_reset_requests="-1",
            x_ratelimit_remaining_tokens="0",
            x_ratelimit_reset_tokens="10",
        )
    ) == RateLimitHeaders(remaining_tokens=0, reset_tokens=10.0)


@each_row("value", ["", "many", "nan", "inf", "-5"])
def test_counts_that_are_none(value: str) -> None:
    assert rate_limits(headers(x_ratelimit_limit_requests=value, x_ratelimit_remaining_tokens=value)) is None


def test_no_limits() -> None:
    assert rate_limits(headers()) is None
    assert rate_limits(headers(x_ratelimit_limit_requests="60.0")) == RateLimitHeaders(limit_requests=60)


@each_row(
    ("values", "plenty"),
    [
        ({}, True),
        ({"limit-requests": "100", "remaining-requests": "51"}, True),
        ({"limit-requests": "100", "remaining-requests": "50"}, False),
        ({"limit-requests": "100", "remaining-requests": "99", "limit-tokens": "10", "remaining-tokens": "5"}, False),
        ({"limit-requests": "100", "remaining-requests": "99", "limit-tokens": "10", "remaining-tokens": "6"}, True),
        ({"limit-requests": "100"}, True),
        ({"remaining-requests": "0"}, True),  # of what, nobody knows
        ({"limit-requests": "-1", "remaining-requests": "5"}, False),
        ({"limit-requests": "many", "remaining-requests": "5"}, False),
        ({"limit-requests": "100", "remaining-requests": "99.5"}, False),
        ({"limit-requests": "9" * 5000, "remaining-requests": "9" * 5000}, False),
        ({"limit-tokens-minute": "100", "remaining-tokens-minute": "99"}, False),
        ({"limit-req-minute": "100"}, False),
    ],
)
def test_whether_plenty_is_left(values: dict[str, str], plenty: bool) -> None:
    headers = {f"x-ratelimit-{name}": value for name, value in values.items()}
    assert has_plenty(headers) is plenty
    raw = [(name.title().encode(), value.encode()) for name, value in headers.items()]
    assert has_plenty(ResponseHeaders.of([(b"Server", b"x-ratelimit-limit-requests: 1"), *raw])) is plenty


IN_ORDER = ("limit-requests: 100", "limit-tokens: 10", "remaining-requests: 99", "remaining-tokens: 6")


@each_row(
    ("lines", "plenty"),
    [
        (IN_ORDER, True),
        ((*IN_ORDER, "reset-requests: 6ms", "reset-tokens: 0s"), True),
        ((*IN_ORDER[:2], "remaining-requests: 50", IN_ORDER[3]), False),
        ((*IN_ORDER[:3], "remaining-tokens: 5"), False),
        ((*IN_ORDER[:3], "remaining-tokens: -1"), False),
        ((*IN_ORDER, "reset-tokens: 0s", "remaining-tokens: 5"), False),  # of two, the last one counts
        (("remaining-tokens: 5", *IN_ORDER), True),
    ],
)
def test_whether_plenty_is_left_of_limits_in_the_usual_order(lines: tuple[str, ...], plenty: bool) -> None:
    head = "\r\n".join(["HTTP/1.1 200 OK", *[f"X-RateLimit-{line}" for line in lines], "Server: a"]).encode()
    assert has_plenty(ResponseHeaders(head)) is plenty
    assert has_plenty(ResponseHeaders(head, head.lower())) is plenty


RAW_HEADERS = [
    (b"X-Request-ID", b"a"),
    (b"x-own", b"1"),
    (b"X-OWN", b"x-none: 2"),
    (b"x-latin", b"\xc0"),
    (b"X-No", b""),
]


@pytest.mark.parametrize(
    "headers",
    [
        ResponseHeaders.of(RAW_HEADERS),
        ResponseHeaders(b"HTTP/1.1 200 OK" + b"".join(b"\r\n%b: \t%b" % header for header in RAW_HEADERS)),
    ],
)
def test_raw_headers_in_lower_case(headers: ResponseHeaders) -> None:
    assert headers == {"x-request-id": "a", "x-own": "x-none: 2", "x-latin": "\xc0", "x-no": ""}
    assert [headers["x-own"], headers.get("x-latin"), headers.get("x-no")] == ["x-none: 2", "\xc0", ""]
    assert (headers.get("x-none"), headers.get("x-none", "-")) == (None, "-")
    assert [name for name in ("x-own", "X-Own", "own", "x-none") if name in headers] == ["x-own"]
    assert len(headers) == 4
    with pytest.raises(KeyError):
        headers["x-none"]
    headers.shrink()
    assert (headers["x-own"], len(headers), ResponseHeaders(headers.head)) == ("x-none: 2", 4, headers)


@given(st.text(max_size=40))
def test_no_header_raises(text: str) -> None:
    for name in (
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-ratelimit-reset-tokens",
        "x-ratelimit-limit-tokens",
    ):
        found = {name: text}
        assert (retry_after(found, NOW) or 1) > 0
        assert should_retry(found) in {True, False, None}
        assert rate_limits(found) is None or name.startswith("x-ratelimit")
        assert has_plenty({**found, "x-ratelimit-remaining-tokens": "1"}) in {True, False}
