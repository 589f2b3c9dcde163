"""Arguments to a request: what is refused before anything is sent, and what goes out as given."""

from __future__ import annotations

import math
import traceback
from collections import UserDict, UserList, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tables import each_row

from chatscope._validation import check_headers, check_number
from chatscope.protocol.endpoint import Endpoint, Secret, shown_url
from chatscope.protocol.parameters import ChatParameters
from chatscope.protocol.request import conversation, encode_body, max_tokens_name

HI = [{"role": "user", "content": "hi"}]
KEY = "sk-very-secret"

# All parameters of the endpoint besides model, messages and stream.
PARAMETERS = [
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
]


def body(model: str = "m", messages: Any = HI, stream: bool = False, extra: Any = None, **parameters: Any) -> Any:
    return msgspec.json.decode(encode_body(model, messages, parameters, stream=stream, extra=extra))


def test_every_parameter_of_the_endpoint_has_a_type() -> None:
    assert sorted(ChatParameters.__annotations__) == PARAMETERS
    assert not ChatParameters.__required_keys__


def test_the_values_that_are_documented_are_there_for_editors() -> None:
    hints = get_type_hints(ChatParameters)
    documented = {
        "reasoning_effort": {"none", "minimal", "low", "medium", "high", "xhigh", "max"},
        "verbosity": {"low", "medium", "high"},
        "service_tier": {"auto", "default", "flex", "scale", "priority", "fast"},
    }
    for name, values in documented.items():
        literal, *others = get_args(hints[name])
        assert set(get_args(literal)) == values
        assert str in others  # what a server adds is no type error


def test_a_body() -> None:
    assert body() == {"model": "m", "messages": HI}
    assert body(stream=True, temperature=0, stop=["a"], n=None) == {
        "model": "m",
        "messages": HI,
        "stream": True,
        "temperature": 0,
        "stop": ["a"],
        "n": None,
    }
    assert body(extra={"top_k": 3, "temperature": 1}, temperature=0) == {
        "model": "m",
        "messages": HI,
        "temperature": 1,
        "top_k": 3,
    }


def test_what_only_the_server_can_judge_goes_out_as_given() -> None:
    sent = {"temperature": -7.5, "max_tokens": 0, "n": -1, "seed": 10**30, "reasoning_effort": "new", "tools": []}
    assert msgspec.json.decode(encode_body("no such model", [{}], sent, stream=False)) == {
        "model": "no such model",
        "messages": [{}],
        **sent,
    }


@dataclass
class Part:
    type: str


@each_row(
    "messages",
    [
        (HI[0],),
        deque(HI),
        UserList(HI),
        [MappingProxyType(HI[0])],
        [UserDict(HI[0])],
        [{"role": "user", "content": "hi"} | {}],
    ],
)
def test_any_sequence_of_mappings_is_a_conversation(messages: Sequence[Mapping[str, Any]]) -> None:
    assert body(messages=messages)["messages"] == HI


def test_mappings_and_sequences_inside_parameters() -> None:
    sent = body(
        tools=deque([MappingProxyType({"type": "function"})]),
        response_format=MappingProxyType({"json_schema": UserDict({"a": (1, Part("x"))})}),
    )
    assert sent["tools"] == [{"type": "function"}]
    assert sent["response_format"] == {"json_schema": {"a": [1, {"type": "x"}]}}


@each_row("model", ["", None, 3, b"m", ["m"]])
def test_a_model_that_is_no_name(model: Any) -> None:
    with pytest.raises(ValueError, match=r"^model must be"):
        body(model=model)


@each_row("messages", [None, [], (), "hi", b"hi", {"role": "user"}, 3, iter(HI), {1, 2}])
def test_messages_that_are_no_conversation(messages: Any) -> None:
    with pytest.raises(ValueError, match=r"^messages must be a list with at least one message"):
        body(messages=messages)


@each_row("message", ["hi", None, 3, ["user", "hi"]])
def test_a_message_that_is_no_mapping(message: Any) -> None:
    with pytest.raises(ValueError, match=rf"^messages must hold mappings .*not {type(message).__name__}"):
        body(messages=[*HI, message])


@each_row(
    "name",
    [
        "frequency_penalty",
        "max_completion_tokens",
        "max_tokens",
        "n",
        "presence_penalty",
        "seed",
        "temperature",
        "top_logprobs",
        "top_p",
    ],
)
def test_numbers_that_are_none(name: str) -> None:
    for wrong in ("0.5", math.nan, math.inf, -math.inf, True, [1], 1j):
        with pytest.raises(ValueError, match=rf"^{name} must be a number, not "):
            encode_body("m", HI, {name: wrong}, stream=False)
    for right in (0, -1, 0.5, 10**400, None):
        assert encode_body("m", HI, {name: right}, stream=False)


def test_check_number_names_what_it_is_told() -> None:
    check_number(1.5, "constraints.temperature")
    with pytest.raises(ValueError, match=r"^constraints\.temperature must be a number, not 'hot'$"):
        check_number("hot", "constraints.temperature")


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@each_row(
    "value",
    [object(), 1j, "\ud800", {"a": "\ud800"}, [object()], {(1, 2): 3}, iter([1]), CIRCLE, print, {"a": {1: object()}}],
)
def test_a_value_that_is_no_json_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^response_format cannot be sent as JSON: .") as caught:
        body(stop="fine", response_format=value, user="fine")
    assert caught.value.__cause__ is not None
    with pytest.raises(ValueError, match=r"^messages cannot be sent as JSON"):
        body(messages=[{"role": "user", "content": value}])
    with pytest.raises(ValueError, match=r"^custom cannot be sent as JSON"):
        body(extra={"custom": value})


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_is_named(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^logit_bias must hold finite numbers, not "):
        body(logit_bias={"5": 1, "7": wrong})
    for extra in ({"top_k": wrong}, {"a": {"b": [1, (wrong,)]}}, {"a": MappingProxyType({"b": wrong})}):
        with pytest.raises(ValueError, match=r"^extra_body must hold finite numbers, not "):
            body(extra=extra)
    assert body(logit_bias={"5": -100.0}, extra={"a": [0.5, "x", None]})


@pytest.mark.parametrize("wrong", ["a=1", [("a", 1)], 3])
def test_what_must_be_a_mapping_is_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^extra_body must be a mapping, not "):
        body(extra=wrong)
    with pytest.raises(ValueError, match=r"^extra_query must be a mapping, not "):
        Endpoint("http://a").url(wrong)
    with pytest.raises(ValueError, match=r"^extra_headers must be a mapping, not "):
        Endpoint("http://a").request_headers(wrong)
    with pytest.raises(ValueError, match=r"^default_headers must be a mapping, not "):
        Endpoint("http://a", headers=wrong)


def test_a_name_that_is_no_json() -> None:
    with pytest.raises(ValueError, match=r"JSON|UTF-8|utf-8"):
        body(extra={"\ud800": 1})


def test_a_prompt_and_a_context_make_a_conversation() -> None:
    assert conversation("hi") == HI
    assert conversation("hi", context={"a": 1, "b": "x"}) == [
        {"role": "system", "content": "Context:\na: 1\nb: x"},
        *HI,
    ]
    assert conversation("", HI) is HI
    assert conversation("", HI, {"a": 1}) == [{"role": "system", "content": "Context:\na: 1"}, *HI]
    assert conversation("hi", None, {}) == HI


@each_row("prompt", ["", None, 3, b"hi", ["hi"]])
def test_a_prompt_that_is_none(prompt: Any) -> None:
    with pytest.raises(ValueError, match=r"^prompt must be a text"):
        conversation(prompt)


def test_both_a_prompt_and_messages() -> None:
    with pytest.raises(ValueError, match=r"^prompt and messages exclude each other$"):
        conversation("hi", HI)
    with pytest.raises(ValueError, match=r"^prompt and messages exclude each other$"):
        conversation("hi", [])


@pytest.mark.parametrize("context", ["a: 1", [("a", 1)], 3])
def test_a_context_that_is_no_mapping(context: Any) -> None:
    with pytest.raises(ValueError, match=r"^context must be a mapping, not "):
        conversation("hi", None, context)


@each_row(
    "model",
    [
        "o1",
        "o1-mini",
        "o3",
        "o4-mini",
        "gpt-5",
        "gpt-5-mini-2025-08-07",
        "gpt-6",
        "gpt-10",
        "openai:gpt-5",
        "router/azure:o1",
        "openai/o3",
        "ft:gpt-5-nano:org",
    ],
)
def test_models_that_reject_max_tokens(model: str) -> None:
    assert max_tokens_name(model) == "max_completion_tokens"


@each_row(
    "model",
    [
        "gpt-4o-mini",
        "gpt-3.5-turbo",
        "gpt-4.1",
        "gpt-oss-120b",
        "llama-o1",
        "olmo-2",
        "deepseek-r1",
        "ft:gpt-4o:o1-like",
        "m",
    ],
)
def test_models_that_take_max_tokens(model: str) -> None:
    assert max_tokens_name(model) == "max_tokens"


@each_row(
    ("base_url", "url"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"),
        ("http://localhost:8080", "http://localhost:8080/chat/completions"),
        ("HTTP://[::1]:8080//", "http://[::1]:8080/chat/completions"),
        (
            "https://a.example/openai/x?api-version=1&b=%2F",
            "https://a.example/openai/x/chat/completions?api-version=1&b=%2F",
        ),
        ("https://a.example?api-version=1", "https://a.example/chat/completions?api-version=1"),
        ("https://a.example/v1#part", "https://a.example/v1/chat/completions"),
    ],
)
def test_the_address(base_url: str, url: str) -> None:
    assert Endpoint(base_url).url() == url
    mark = "&" if "?" in url else "?"
    assert Endpoint(base_url).url({"a": "x y", "b": [1, 2]}) == f"{url}{mark}a=x+y&b=1&b=2"
    assert Endpoint(base_url).url({}) == url


def test_an_address_that_depends_on_the_model() -> None:
    endpoint = Endpoint("https://a.example/deployments/{model}?api-version=1")
    assert endpoint.names_model
    assert endpoint.url(model="org/m x") == ("https://a.example/deployments/org%2Fm%20x/chat/completions?api-version=1")
    assert not Endpoint("https://a.example/v1").names_model
    assert Endpoint("https://a.example/v1").url(model="m") == "https://a.example/v1/chat/completions"


@each_row(
    "base_url",
    [
        "",
        "api.openai.com/v1",
        "ftp://a.example",
        "//a.example",
        "https://",
        "http:///v1",
        "https:a.example",
        " http://a",
        None,
        3,
        b"http://a",
    ],
)
def test_a_base_url_that_is_none(base_url: Any) -> None:
    with pytest.raises(ValueError, match=r"^base_url must begin with http:// or https:// and name a host"):
        Endpoint(base_url, KEY)


@each_row("base_url", ["http://[::1", "https://[x]/v1", "http://a:99999/v1", "http://a:b", "http://a:-1"])
def test_a_base_url_that_cannot_be_read(base_url: str) -> None:
    with pytest.raises(ValueError, match=r"^base_url is not a URL: "):
        Endpoint(base_url, KEY)


def test_the_headers_of_a_request() -> None:
    headers = Endpoint("http://a", KEY, "org", "proj", {"X-Own": "1", "User-Agent": "mine"}).request_headers()
    assert headers == {
        "accept": "application/json",
        "content-type": "application/json",
        "user-agent": "mine",
        "authorization": f"Bearer {KEY}",
        "openai-organization": "org",
        "openai-project": "proj",
        "x-own": "1",
    }
    bare = Endpoint("http://a").request_headers()
    assert sorted(bare) == ["accept", "content-type", "user-agent"]
    assert bare["user-agent"].startswith("chatscope/")


def test_a_key_that_goes_into_another_header() -> None:
    headers = Endpoint("http://a", KEY, key_header="Api-Key").request_headers()
    assert headers["api-key"] == KEY
    assert "authorization" not in headers
    assert KEY not in repr(headers)
    assert Endpoint("http://a", KEY, key_header="Authorization").request_headers()["authorization"] == f"Bearer {KEY}"
    assert "api-key" not in Endpoint("http://a", key_header="api-key").request_headers()


@each_row("name", ["", "a b", "a\nb", "a:", None])
def test_a_key_header_that_is_none(name: Any) -> None:
    with pytest.raises(ValueError, match=r"^key_header has a header whose name is not allowed"):
        Endpoint("http://a", KEY, key_header=name)


def test_what_the_caller_adds_replaces_what_is_there() -> None:
    endpoint = Endpoint("http://a", KEY, headers={"X-Own": "1"})
    headers = endpoint.request_headers({"AUTHORIZATION": "Basic x", "x-own": "2", "X-More": ""})
    assert headers["authorization"] == "Basic x"
    assert headers["x-own"] == "2"
    assert headers["x-more"] == ""
    assert endpoint.request_headers()["x-own"] == "1"


BAD_VALUES = ["a\nb", "a\rb", "a\r\nX-Injected: 1", "\n", "a\0", "\u00e9", "a\u2028b", 3, None, b"a"]


@each_row("value", BAD_VALUES)
def test_a_header_that_would_begin_another(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^default_headers\['X-Own'\] must be text without line breaks") as caught:
        Endpoint("http://a", KEY, headers={"X-Fine": "1", "X-Own": value})
    assert "Injected" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^extra_headers\['X-Own'\] must be"):
        Endpoint("http://a", KEY).request_headers({"X-Own": value})


@each_row("name", ["", "a b", "a:b", "a\nb", "\u00e9", "a\0", 3, None])
def test_a_header_name_that_is_none(name: Any) -> None:
    with pytest.raises(ValueError, match=r"^default_headers has a header whose name is not allowed"):
        Endpoint("http://a", KEY, headers={name: "1"})
    with pytest.raises(ValueError, match=r"^extra_headers has a header whose name is not allowed"):
        Endpoint("http://a", KEY).request_headers({name: "1"})


@each_row("field", ["api_key", "organization", "project"])
@each_row("value", ["sk-very-secret\n", "sk-very-secret\r\nX: 1", "sk-very-secr\u00e9t", 3])
def test_a_key_or_name_that_no_header_can_hold(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{field} ") as caught:
        Endpoint("http://a", **{field: value})
    assert "secr" not in str(caught.value)


def test_the_key_does_not_show() -> None:
    endpoint = Endpoint("http://a", KEY, headers={"api-key": KEY})
    assert KEY not in repr(endpoint)
    assert KEY not in str(endpoint)
    assert "http://a" in repr(endpoint)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example:8/v1", "https://a.example:8/v1"),
        ("https://me:secret@a.example/v1", "https://***@a.example/v1"),
        ("https://secret@a.example/v1?api-key=secret&x", "https://***@a.example/v1?***"),
    ],
)
def test_an_address_shows_nobody_s_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    assert repr(Endpoint(url)) == f"Endpoint({shown!r})"


@each_row(
    "url",
    [
        "http://me:sec/secret?secret#secret@a.example/v1",
        "me:secret@a.example",
        "ftp://me:secret@a.example?secret",
        "http://me:secret@[a.example",
        "http://me:secret@a.example:99999",
    ],
)
def test_an_address_that_is_none_shows_nobody_s_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"^base_url ") as caught:
        Endpoint(url, KEY)
    assert "secret" not in str(caught.value)
    trace = traceback.TracebackException.from_exception(caught.value, limit=-1, capture_locals=True)
    assert "secret" not in "".join(trace.format())


def test_a_secret_is_text_that_does_not_show() -> None:
    secret = Secret(KEY)
    assert secret == KEY
    assert f"{secret}" == KEY
    assert repr(secret) == "'***'"
    assert KEY not in repr({"authorization": secret, "all": [secret]})
    assert KEY not in repr(Endpoint("http://a", KEY).request_headers())
    assert Endpoint("http://a", KEY).request_headers()["authorization"].encode() == b"Bearer " + KEY.encode()


def test_an_endpoint_is_a_value() -> None:
    endpoint = Endpoint("http://a", KEY)
    assert endpoint == Endpoint("http://a", KEY)
    with pytest.raises(AttributeError):
        endpoint.api_key = "other"  # type: ignore[misc]  # that it is frozen is the point


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_header_is_refused_or_stays_one_line(name: str, value: str) -> None:
    try:
        check_headers({name: value}, "extra_headers")
    except ValueError as error:
        assert str(error).startswith("extra_headers")  # noqa: PT017 - being refused is one of two right outcomes
    else:
        line = f"{name}: {value}".encode("ascii")
        assert not {*line} & {*b"\r\n\0"}
