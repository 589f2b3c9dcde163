"""The simulated model's output: a `Reply`, and the tokens of each of its choices for a request.

Not here: rendering as chunks or as a completion (`rendering`), and bytes that no correct server sends (`faults`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

from chatscope.simulator.faults import Fault
from chatscope.simulator.plan import Plan, Response
from chatscope.simulator.request import ChatRequest, DefinedTool, named_tools
from chatscope.simulator.schemas import minimal
from chatscope.simulator.tokens import stretch, tokenize

EXCERPT = 60
"""Characters of the prompt that a made-up reply quotes: enough to recognise it in one line of a terminal."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool. If `arguments` is a string, it is sent unchanged, valid or not."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict[str, Any])
    type: Literal["function", "custom"] = "function"

    @property
    def text(self) -> str:
        """The arguments as a model writes them."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


class UsageIn(Enum):
    """The place where a stream reports its usage."""

    ASKED = "asked"
    """In a separate chunk, if `stream_options.include_usage` requests it: OpenAI."""
    FINISH = "finish"
    """On the finish chunk, requested or not: llama.cpp."""
    EVERY = "every"
    """On every chunk, growing: Gemini-compatible endpoints."""
    X_GROQ = "x_groq"
    """On the finish chunk, under `x_groq`: Groq."""
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Reply:
    """The simulated model's output, its speed and its faults.

    The default text quotes the prompt, or is the smallest document that the requested JSON schema allows. If
    `tool_choice` demands a call, the reply makes one, with the smallest arguments that the tool's schema allows, unless
    the conversation already ends in results of tools.
    """

    text: str | tuple[str, ...] | None = None
    """The text. A tuple gives its tokens, one chunk each, instead of the token rule."""
    tokens: int | None = None
    """Repeat or cut the text to this many tokens."""
    reasoning: str = ""
    reasoning_field: str = "reasoning_content"
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    use_tools: bool = False
    """Call each offered tool as if `tool_choice` demanded it."""
    finish_reason: str | None = None
    """By default, the one that fits the reply."""
    first_token: float = 0.0
    """Seconds from the request to the first token."""
    between_tokens: float = 0.0
    """Seconds from one token to the next."""
    cached_tokens: int = 0
    """How many prompt tokens the usage reports as cached, at most all of them."""
    usage: Mapping[str, Any] | None = None
    """Fields of the usage that are reported instead of the counted ones."""
    usage_in: UsageIn = UsageIn.ASKED
    stream: bool | None = None
    """Whether to stream, whatever was requested. By default, as requested."""
    faults: tuple[Fault, ...] = ()


Answer: TypeAlias = Reply | Fault | Response | Plan
"""An answer of a script: a reply, a fault (of the default reply), a finished response, or bare steps."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a choice, which is one chunk of a stream. The opening of a tool call counts as one."""

    kind: str
    """The field of the message it belongs to."""
    text: str
    call: ToolCall | None = None
    call_index: int = 0
    opens: bool = False


@dataclass(frozen=True, slots=True)
class ReplyChoice:
    """One of the `n` choices."""

    index: int
    tokens: tuple[Token, ...]
    finish_reason: str


def cost(request: ChatRequest, answer: Answer) -> int:
    """Return the total tokens of an answer's usage. If it is not a reply, only the prompt counts."""
    if isinstance(answer, Fault):
        answer = Reply()
    completion = choices_of(request, answer) if isinstance(answer, Reply) else ()
    return request.prompt_tokens + sum(len(choice.tokens) for choice in completion)


def choices_of(request: ChatRequest, reply: Reply) -> tuple[ReplyChoice, ...]:
    """Return the choices, cut at the request's stop sequences and token limit."""
    return tuple(_choice(request, reply, index) for index in range(request.parameters.n or 1))


def _choice(request: ChatRequest, reply: Reply, index: int) -> ReplyChoice:
    tokens = [Token(reply.reasoning_field, text) for text in tokenize(reply.reasoning)]
    calls = reply.tool_calls or tuple(_due_calls(request, reply))
    finish_reason = "tool_calls" if calls else "stop"
    if reply.refusal is not None:
        tokens += (Token("refusal", text) for text in tokenize(reply.refusal))
    elif reply.text is not None or not calls:
        tokens += (Token("content", text) for text in _text_parts(request, reply, index))
    for number, call in enumerate(calls):
        tokens.append(Token("tool_calls", "", call, number, opens=True))
        tokens += (Token("tool_calls", text, call, number) for text in tokenize(call.text))
    if request.token_limit is not None and len(tokens) > request.token_limit:
        tokens, finish_reason = tokens[: request.token_limit], "length"
    return ReplyChoice(index, tuple(tokens), reply.finish_reason or finish_reason)


def _text_parts(request: ChatRequest, reply: Reply, index: int) -> Iterable[str]:
    """Return the tokens of the text: those of the reply, unless its text is stretched or cut."""
    if isinstance(reply.text, tuple) and reply.tokens is None and not request.stop:
        return reply.text
    return tokenize(_text(request, reply, index))


def _text(request: ChatRequest, reply: Reply, index: int) -> str:
    text = "".join(reply.text) if isinstance(reply.text, tuple) else reply.text
    if text is None:
        text = _document(request) or _sentence(request, index)
    if reply.tokens is not None:
        text = stretch(text, reply.tokens)
    ends = [text.find(stop) for stop in request.stop if stop in text]
    return text[: min(ends)] if ends else text


def _document(request: ChatRequest) -> str | None:
    """Return the JSON that the response format requests."""
    wanted = request.parameters.response_format
    if wanted is None or wanted.type == "text":
        return None
    schema = wanted.json_schema.schema if wanted.json_schema else None
    return json.dumps(minimal(schema or {"type": "object"}), ensure_ascii=False)


def _sentence(request: ChatRequest, index: int) -> str:
    source = "The tools said" if request.answers_tools else "You asked"
    quoted = request.parameters.messages[-1].text if request.answers_tools else request.prompt
    excerpt = " ".join(quoted.split())
    if len(excerpt) > EXCERPT:
        excerpt = excerpt[: EXCERPT - 3] + "..."
    which = f" This is choice {index + 1}." if index else ""
    return f"{source}: “{excerpt}”. This answer is made up by a simulator, one token at a time.{which}"


def _due_calls(request: ChatRequest, reply: Reply) -> Iterator[ToolCall]:
    """Yield the calls that the request or the reply demands."""
    choice = request.parameters.tool_choice
    if request.answers_tools or choice == "none":
        return
    names: set[str] | None = None
    if isinstance(choice, dict):
        names = named_tools(choice)
        demanded = choice.get("type") != "allowed_tools" or choice["allowed_tools"].get("mode") == "required"
    else:
        demanded = choice == "required"
    if demanded or reply.use_tools:
        offered = [tool for tool in request.parameters.tools or () if names is None or tool.definition.name in names]
        # A model that is forced to call a tool calls one; `use_tools` and allowed tools yield several calls at once.
        yield from (_smallest_call(tool) for tool in (offered if reply.use_tools else offered[:1]))


def _smallest_call(tool: DefinedTool) -> ToolCall:
    definition = tool.definition
    if tool.type == "custom":
        return ToolCall(definition.name, "simulated input", "custom")
    return ToolCall(definition.name, minimal(definition.parameters or {"type": "object"}))
