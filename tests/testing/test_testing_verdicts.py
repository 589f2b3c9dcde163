"""What makes a test with `chat_endpoint` fail, and the report. Each case is a separate pytest run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.inner_pytest import Run


@pytest.fixture(autouse=True)
def backend(request: pytest.FixtureRequest, pytester: pytest.Pytester) -> None:
    """Run the async tests of each test file on one backend: asyncio, unless the test says otherwise."""
    name = getattr(request, "param", "asyncio")
    pytester.makeconftest(f"import pytest\n@pytest.fixture\ndef anyio_backend():\n    return {name!r}\n")


@pytest.mark.parametrize("backend", ["asyncio", "trio"], indirect=True)
def test_a_test_that_follows_its_script_passes(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    chat_endpoint.add("a", error(503), "c", model="m")
    assert await ask() == "a"
    with pytest.raises(Exception, match="503"):
        await ask()
    assert await ask() == "c"
""")
    result.assert_outcomes(passed=1)


# -- requests without a step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"], indirect=True)
def test_one_request_too_many_fails_even_if_the_application_ignores_it(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    chat_endpoint.add("a")
    assert [await ask_and_forget(), await ask_and_forget(seed=7)] == ["a", "nothing"]
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "chat_endpoint: Request 2 was not expected.",
            "All steps were used.",
            "The request: {'model': 'm', 'messages': [[]{'role': 'user', 'content': 'hi'}], 'seed': 7}",
        ],
        consecutive=True,
    )


def test_the_adapter_reports_it_in_the_result_and_the_test_still_fails(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    async with AsyncChatGPTAdapter() as adapter:
        result = await adapter.execute(Task("hi"))
    assert isinstance(result.exception, UnexpectedRequestError)
    assert result.attempts == 1, "no retry"
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["chat_endpoint: Request 1 was not expected."])


def test_a_different_request_fails_and_shows_the_difference(run: Run) -> None:
    result = run("""
def is_short(request):
    return len(request.prompt) < 2

async def test_it(chat_endpoint):
    chat_endpoint.add(
        Reply("a", first_token=0.5),
        model="gpt-4o",
        temperature=0,
        max_tokens=None,
        messages=[{"role": "system", "content": "Be brief and kind, and never use a long word."}, *ASK["messages"]],
        headers={"X-Team": "blue", "authorization": "Bearer sk-other"},
        where=is_short,
    )
    await ask_and_forget(max_tokens=5, extra_headers={"x-team": "red"})
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "chat_endpoint: Request 1 was not expected.",
            "It does not match step 1, Reply(text='a', first_token=0.5), for model='gpt-4o', temperature=0, *",
            "  model: expected 'gpt-4o', got 'm'",
            "  temperature: expected 0, got nothing",
            "  max_tokens: expected nothing, got 5",
            "  messages: (- expected, + got)",
            "    - [[]{'role': 'system', 'content': 'Be brief and kind, and never use a long word.'},",
            "    -  {'role': 'user', 'content': 'hi'}]",
            "    + [[]{'role': 'user', 'content': 'hi'}]",
            "  header X-Team: expected 'blue', got 'red'",
            "  header authorization: differs",
            "  where: is_short returned false",
            "The request: {'model': 'm', *'max_tokens': 5}",
            "Not used: step 1, Reply(text='a', first_token=0.5), for model='gpt-4o', *where=is_short.",
        ],
    )
    result.stdout.no_fnmatch_line("*sk-other*")
    result.stdout.no_fnmatch_line("*sk-chatscope-test*")


def test_functions_and_responses_that_fail(run: Run) -> None:
    result = run("""
def is_about_cats(request):
    assert "cat" in request.prompt, "no cat in it"
    return True

def respond(request):
    assert request.parameters.temperature == 0, "not at zero"

async def test_where(chat_endpoint):
    chat_endpoint.add("a", where=is_about_cats)
    await ask_and_forget()

async def test_function(chat_endpoint):
    chat_endpoint.default = respond
    await ask_and_forget()

async def test_impossible_fault(chat_endpoint):
    chat_endpoint.add(Reply("abc", faults=(faults.cut_character(),)))
    await ask_and_forget()

@pytest.mark.parametrize("returned", [None, ["a", "b"]])
async def test_wrong_type(chat_endpoint, returned):
    chat_endpoint.add(lambda request: returned)
    await ask_and_forget()
""")
    result.assert_outcomes(failed=5)
    result.stdout.fnmatch_lines(
        [
            "  where: is_about_cats raised AssertionError: no cat in it*",
            "chat_endpoint: The response could not be built: AssertionError: not at zero*",
            "*: ValueError: no character of several bytes to cut after 1",
            "*: TypeError: * a Reply, a Fault, a Response or a Plan, not None",
            "*: TypeError: * a Reply, a Fault, a Response or a Plan, not [[]'a', 'b']",
        ]
    )


def test_a_failure_of_the_test_comes_first(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    chat_endpoint.add("a", model="other")
    assert await ask_and_forget() == "a"
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E   AssertionError: assert 'nothing' == 'a'",
            "*Captured chat_endpoint call*",
            "Request 1 was not expected.",
            "  model: expected 'other', got 'm'",
        ]
    )
    result.stdout.no_fnmatch_line("Not used*")


def test_an_error_that_reaches_the_test_is_reported_once(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    await ask()
""")
    result.assert_outcomes(failed=1)
    assert result.stdout.str().count("There are no steps.") == 1
    result.stdout.no_fnmatch_line("*_take_step*")  # frames of the test kit are hidden


def test_requests_of_fixtures_after_the_test(run: Run) -> None:
    result = run("""
@pytest.fixture
async def unexpected(chat_endpoint):
    yield
    await ask_and_forget()

@pytest.fixture
async def expected(chat_endpoint):
    yield
    assert await ask() == "still there"

async def test_error(unexpected):
    pass

async def test_default(expected, chat_endpoint):
    chat_endpoint.default = "still there"
""")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["chat_endpoint: Request 1 was not expected."])


def test_a_fixture_requested_in_the_body_of_a_synchronous_test(run: Run) -> None:
    result = run("""
import anyio

def test_it(request):
    request.getfixturevalue("chat_endpoint").add("a")
    assert anyio.run(ask) == "a"
    assert anyio.run(ask_and_forget) == "nothing"
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["chat_endpoint: Request 2 was not expected."])


def test_problems_are_reported_once(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    chat_endpoint.add("a", model="other")
    await ask_and_forget()
""")
    result.assert_outcomes(failed=1, errors=0)


# -- unused steps ------------------------------------------------------------------------------------------------------


def test_an_unused_step_fails(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    chat_endpoint.add("a", error(429), model="m")
    chat_endpoint.add(faults.reset(3), httpx.ConnectError("refused"), lambda request: "x", Plan(()))
    await ask()
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "chat_endpoint: Not used: step 2, status 429, for model='m'.",
            "Not used: step 3, fault 'reset'.",
            "Not used: step 4, ConnectError('refused').",
            "Not used: step 5, test_it.<locals>.<lambda>.",
            "Not used: step 6, plan of 0 steps.",
        ]
    )


def test_skipped_and_synchronous_tests(run: Run) -> None:
    result = run("""
import anyio

async def test_skipped(chat_endpoint):
    chat_endpoint.add("a")
    pytest.skip("not today")

def test_good(chat_endpoint):
    chat_endpoint.add("a")
    assert anyio.run(ask) == "a"

def test_bad(chat_endpoint):
    chat_endpoint.add("a")
""")
    result.assert_outcomes(passed=1, failed=1, skipped=1)


# -- turned off --------------------------------------------------------------------------------------------------------


def test_a_marker_turns_strictness_off(run: Run) -> None:
    result = run("""
async def overdo(chat_endpoint):
    chat_endpoint.add("a", model="other")
    with pytest.raises(UnexpectedRequestError):  # there is no response
        await ask()

@pytest.mark.chat_endpoint(allow_unexpected=True)
async def test_unused_still_fails(chat_endpoint):
    await overdo(chat_endpoint)

@pytest.mark.chat_endpoint(allow_unused=True)
async def test_unexpected_still_fails(chat_endpoint):
    await overdo(chat_endpoint)

@pytest.mark.chat_endpoint(allow_unexpected=True, allow_unused=True)
class TestBoth:
    async def test_it(self, chat_endpoint):
        await overdo(chat_endpoint)
""")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*test_unused_still_fails*",
            "chat_endpoint: Not used: step 1*",
            "*test_unexpected_still_fails*",
            "chat_endpoint: Request 1 was not expected.",
        ],
    )


def test_a_misspelled_marker_is_an_error(run: Run) -> None:
    result = run("""
@pytest.mark.chat_endpoint(allow_unusd=True)
async def test_name(chat_endpoint):
    pass

@pytest.mark.chat_endpoint(False)
async def test_positional(chat_endpoint):
    pass
""")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*unexpected keyword argument 'allow_unusd'*", "*takes 1 positional argument*"])
