"""What fails a test that uses `chat_endpoint`, and what it says; each case is a pytest run of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.inner_pytest import Run


@pytest.fixture(autouse=True, params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest, pytester: pytest.Pytester) -> None:
    """Have the async tests of the test file run on one backend."""
    pytester.makeconftest(f"import pytest\n@pytest.fixture\ndef anyio_backend():\n    return {request.param!r}\n")


def test_a_script_that_is_followed_passes(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    chat_endpoint.add("a", error(503), "c", model="m")
    assert await ask() == "a"
    with pytest.raises(Exception, match="503"):
        await ask()
    assert await ask() == "c"
""")
    result.assert_outcomes(passed=1)


# -- requests that no step is for --------------------------------------------------------------------------------------


def test_a_request_too_many_fails_although_nobody_noticed(run: Run) -> None:
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
            "It was: {'model': 'm', 'messages': [[]{'role': 'user', 'content': 'hi'}], 'seed': 7}",
        ],
        consecutive=True,
    )


def test_the_adapter_tells_it_in_the_result_and_the_test_fails_anyway(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    async with AsyncChatGPTAdapter() as adapter:
        result = await adapter.execute(Task("hi"))
    assert isinstance(result.exception, UnexpectedRequestError)
    assert result.attempts == 1, "no retry"
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["chat_endpoint: Request 1 was not expected."])


def test_a_different_request_fails_and_the_difference_is_shown(run: Run) -> None:
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
            "It is not for step 1, Reply(text='a', first_token=0.5), for model='gpt-4o', temperature=0, *",
            "  model: expected 'gpt-4o', got 'm'",
            "  temperature: expected 0, got nothing",
            "  max_tokens: expected nothing, got 5",
            "  messages: (- expected, + got)",
            "    - [[]{'role': 'system', 'content': 'Be brief and kind, and never use a long word.'},",
            "    -  {'role': 'user', 'content': 'hi'}]",
            "    + [[]{'role': 'user', 'content': 'hi'}]",
            "  header X-Team: expected 'blue', got 'red'",
            "  header authorization: is another",
            "  where: is_short said no",
            "It was: {'model': 'm', *'max_tokens': 5}",
            "This was not used: step 1, Reply(text='a', first_token=0.5), for model='gpt-4o', *where=is_short.",
        ],
    )
    result.stdout.no_fnmatch_line("*sk-other*")
    result.stdout.no_fnmatch_line("*sk-chatscope-test*")


def test_an_assertion_in_where_says_what_it_says(run: Run) -> None:
    result = run("""
def is_about_cats(request):
    assert "cat" in request.prompt, "no cat in it"
    return True

async def test_it(chat_endpoint):
    chat_endpoint.add("a", where=is_about_cats)
    await ask_and_forget()
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["  where: is_about_cats raised AssertionError: no cat in it*"])


def test_an_answering_function_that_fails_fails_the_test(run: Run) -> None:
    result = run("""
def answer(request):
    assert request.parameters.temperature == 0, "not at zero"

async def test_it(chat_endpoint):
    chat_endpoint.default = answer
    await ask_and_forget()
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["chat_endpoint: An answer could not be made: AssertionError: not at zero*"])


def test_an_answer_that_makes_no_sense_fails_the_test(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    chat_endpoint.add(Reply("abc", faults=(faults.cut_character(),)))
    await ask_and_forget()
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*: ValueError: no character of several bytes to cut after 1"])


@pytest.mark.parametrize("answer", ["None", "['a', 'b']"])
def test_what_is_no_answer_fails_the_test(answer: str, run: Run) -> None:
    result = run(f"""
async def test_it(chat_endpoint):
    chat_endpoint.add(lambda request: {answer})
    await ask_and_forget()
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*: TypeError: an answer is a Reply, a Fault, a Response or a Plan, not *"])


def test_what_the_test_says_itself_comes_first(run: Run) -> None:
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
    result.stdout.no_fnmatch_line("This was not used*")


def test_an_error_that_reaches_the_test_is_told_once(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    await ask()
""")
    result.assert_outcomes(failed=1)
    assert result.stdout.str().count("There are no steps.") == 1
    result.stdout.no_fnmatch_line("*_scripted*")  # what is wrong is not in the kit: its frames are not shown


def test_a_request_by_a_fixture_after_the_test_is_told_there(run: Run) -> None:
    result = run("""
@pytest.fixture
async def application(chat_endpoint):
    yield
    await ask_and_forget()

async def test_it(application):
    pass
""")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["chat_endpoint: Request 1 was not expected."])


def test_what_answers_in_the_test_answers_after_it(run: Run) -> None:
    result = run("""
@pytest.fixture
async def application(chat_endpoint):
    yield
    assert await ask() == "still there"

async def test_it(application, chat_endpoint):
    chat_endpoint.default = "still there"
""")
    result.assert_outcomes(passed=1)


def test_a_test_may_ask_for_it_in_its_body(run: Run) -> None:
    result = run("""
import anyio

def test_it(request):
    request.getfixturevalue("chat_endpoint").add("a")
    assert anyio.run(ask) == "a"
    assert anyio.run(ask_and_forget) == "nothing"
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["chat_endpoint: Request 2 was not expected."])


def test_what_was_told_of_the_test_is_not_told_again(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    chat_endpoint.add("a", model="other")
    await ask_and_forget()
""")
    result.assert_outcomes(failed=1, errors=0)


# -- steps that are left over ------------------------------------------------------------------------------------------


def test_a_step_left_over_fails(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    chat_endpoint.add("a", error(429), model="m")
    chat_endpoint.add(faults.reset(3), httpx.ConnectError("refused"), lambda request: "x", Plan(()))
    await ask()
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "chat_endpoint: This was not used: step 2, status 429, for model='m'.",
            "This was not used: step 3, fault 'reset'.",
            "This was not used: step 4, ConnectError('refused').",
            "This was not used: step 5, test_it.<locals>.<lambda>.",
            "This was not used: step 6, plan of 0 steps.",
        ]
    )


def test_a_skipped_test_owes_nothing(run: Run) -> None:
    result = run("""
async def test_it(chat_endpoint):
    chat_endpoint.add("a")
    pytest.skip("not today")
""")
    result.assert_outcomes(skipped=1)


def test_a_synchronous_test_is_judged_as_well(run: Run) -> None:
    result = run("""
import anyio

def test_good(chat_endpoint):
    chat_endpoint.add("a")
    assert anyio.run(ask) == "a"

def test_bad(chat_endpoint):
    chat_endpoint.add("a")
""")
    result.assert_outcomes(passed=1, failed=1)


# -- turned off --------------------------------------------------------------------------------------------------------


def test_strictness_is_turned_off_by_a_marker(run: Run) -> None:
    result = run("""
async def overdo(chat_endpoint):
    chat_endpoint.add("a", model="other")
    with pytest.raises(UnexpectedRequestError):  # there is nothing to answer
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
            "chat_endpoint: This was not used: step 1*",
            "*test_unexpected_still_fails*",
            "chat_endpoint: Request 1 was not expected.",
        ],
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [("allow_unusd=True", "unexpected keyword argument 'allow_unusd'"), ("False", "takes 1 positional argument")],
)
def test_a_marker_that_is_misspelled_is_an_error(arguments: str, error: str, run: Run) -> None:
    result = run(f"""
@pytest.mark.chat_endpoint({arguments})
async def test_it(chat_endpoint):
    pass
""")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*{error}*"])
