"""The commands, their options and their help.

Not here: what the commands do (`ask`, `demo`, `chatscope.simulator`), and how they run on an event loop (`loop`).
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TextIO, get_args

import anyio
import click

from chatscope import TaskConstraints
from chatscope.cli.ask import Question, ask
from chatscope.cli.batch import batch
from chatscope.cli.demo import demo
from chatscope.cli.load import load
from chatscope.cli.loop import exit_code_of, report_os_error
from chatscope.cli.loop import run as run_loop
from chatscope.cli.models import models
from chatscope.cli.options import BACKEND_OPTION, json_object, json_values, whole_prompt
from chatscope.simulator import Config, Received, Reply, Script, serve
from chatscope.simulator.directives import scripted
from chatscope.simulator.tokenizer import TokenizerStyle
from chatscope.version import __version__

_WAIT: Final = click.FloatRange(min=0)


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line and return its exit code; 130 for Ctrl-C outside an event loop."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a model may write characters that a terminal cannot show
    try:
        code: int | None = chatscope.main(arguments, prog_name="chatscope", standalone_mode=False)
        return code or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except OSError as error:  # --help and --version write without an event loop
        report_os_error(error)
        return 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="chatscope")
def chatscope() -> None:
    """Chat completions in cancel scopes, on asyncio and trio."""


chatscope.add_command(batch)
chatscope.add_command(load)


@chatscope.command("ask", short_help="Ask a model and print its response as it arrives.")
@click.argument("prompt", required=False)
@click.option("--model", metavar="NAME", default="gpt-4o-mini", show_default=True, help="Model to ask.")
@click.option("--base-url", metavar="URL", help="Address of the server. [default: $OPENAI_BASE_URL, else OpenAI's]")
@click.option("--system", metavar="TEXT", help="System message.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Limit of the response, in tokens.")
@click.option("--temperature", type=float, metavar="X", help="Sampling temperature.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Limit for it all, with retries.",
)
@click.option("--attempts", type=click.IntRange(min=1), metavar="N", help="Requests at the most; 1: no retry.")
@click.option("--profile", metavar="NAME", help="Name of the server, if its URL does not reveal it.")
@click.option(
    "--parameter", "parameters", multiple=True, metavar="NAME=JSON", callback=json_values, help="Any other parameter."
)
@click.option(
    "--schema", type=click.File("rb"), metavar="FILE", callback=json_object, help="JSON schema of the response."
)
@click.option("--image", "images", multiple=True, metavar="FILE|URL", help="Image to show with the prompt.")
@click.option("--file", "files", multiple=True, metavar="FILE", help="Document to send with the prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole result, or its error, as one JSON document.")
@BACKEND_OPTION
def ask_command(
    prompt: str | None,
    max_tokens: int | None,
    temperature: float | None,
    timeout: float | None,
    parameters: dict[str, Any],
    schema: dict[str, Any] | None,
    backend: str,
    **rest: Any,
) -> int:
    """Ask a model and print its response as it arrives.

    Piped input is appended to PROMPT after a blank line. With "-" or no PROMPT, it is the whole prompt.

    The API key comes only from OPENAI_API_KEY. It is not an option, because shell histories and process lists show
    options to other users.

    \b
    Exit codes:
      0    the model answered
      1    the task failed; the error is on stderr, after any text
      2    bad arguments or no key; nothing was sent
      130  Ctrl-C, 143 SIGTERM; the connection is closed
      141  the reader of the output closed it
    """  # noqa: D301 - the backspace character makes click keep the lines as they are
    # A standard stream that the parent process has closed (`>&-`) is None.
    if sys.stdout is None:
        raise click.ClickException("stdout is closed, so the response cannot be printed")
    prompt = whole_prompt(prompt)
    if not prompt.strip():
        raise click.BadParameter("it is empty", param_hint="PROMPT")
    if schema is not None:
        json_schema = {"name": "output", "schema": schema}  # not `strict`, which few schemas fit
        parameters = {"response_format": {"type": "json_schema", "json_schema": json_schema}, **parameters}
    constraints = TaskConstraints(max_tokens=max_tokens, temperature=temperature, timeout_seconds=timeout)
    question = Question(prompt, constraints=constraints, parameters=parameters, **rest)
    return run_loop(partial(ask, question), backend)


@chatscope.command("models")
@click.option("--base-url", metavar="URL", help="Address of the server. [default: $OPENAI_BASE_URL, else OpenAI's]")
@BACKEND_OPTION
def models_command(base_url: str | None, backend: str) -> int:
    """List the models of a server, one per line. The key comes from OPENAI_API_KEY."""
    return run_loop(partial(models, base_url), backend)


@chatscope.command("demo")
@BACKEND_OPTION
def demo_command(backend: str) -> int:
    """Run several tasks at once against a simulated server. No key needed.

    Two tasks stream side by side, one of them is cancelled midway, and a third is rate limited and retried.
    """
    return run_loop(demo, backend)


@chatscope.command("simulator")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8000,
    show_default=True,
    help="0: any free port.",
)
@click.option("--first-token", type=_WAIT, metavar="SECONDS", default=0.2, show_default=True, help="Before the first.")
@click.option("--between-tokens", type=_WAIT, metavar="SECONDS", default=0.02, show_default=True, help="Between two.")
@click.option("--requests-per-minute", type=click.IntRange(min=1), metavar="N", help="Answer 429 above this.")
@click.option("--tokens-per-minute", type=click.IntRange(min=1), metavar="N", help="Answer 429 above this.")
@click.option("--max-running", type=click.IntRange(min=1), metavar="N", help="Answer so many at a time; others wait.")
@click.option(
    "--tokenizer", type=click.Choice(get_args(TokenizerStyle)), help="Whose /tokenize to have. [default: none]"
)
@click.option("--faults", type=click.File(), metavar="FILE", help="Faults for the requests in turn, one line each.")
@click.option("--quiet", is_flag=True, help="Print no line for each request.")
def simulator_command(
    host: str,
    port: int,
    first_token: float,
    between_tokens: float,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    max_running: int | None,
    tokenizer: TokenizerStyle | None,
    faults: TextIO | None,
    quiet: bool,
) -> int:
    """Run an OpenAI-compatible server with made-up responses.

    A prompt can request a fault: "[simulate: status=503]" or "[simulate: stall=3]". The error for an unknown word lists
    the known ones. A line of --faults holds the same words ("status=429/2"); an empty line means no fault.

    When a response has ended, a line on stderr reports its request: number, status, how it ended, seconds.
    Stop the server with Ctrl-C or SIGTERM; the exit code is 0.
    """
    config = Config(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        max_running=max_running,
        tokenizer=tokenizer,
    )
    reply = Reply(first_token=first_token, between_tokens=between_tokens)
    try:
        script = reply if faults is None else scripted(faults.read().splitlines(), reply)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--faults") from error
    try:
        on_end = None if quiet else _print_access
        return anyio.run(exit_code_of, partial(_serve, host, port, config, script, on_end))
    except KeyboardInterrupt:  # before the server handles signals, and on Windows
        return 0


def _print_access(received: Received) -> None:
    """Print how a response ended. A cancelled request appears here as `client disconnected`."""
    status = "-" if received.status is None else received.status
    click.echo(
        f"{received.number:>4} {received.method} {received.path} {status} {received.outcome.value} "
        f"{received.seconds or 0:.2f} s",
        err=True,
    )


async def _serve(
    host: str,
    port: int,
    config: Config,
    script: Script,
    on_end: Callable[[Received], object] | None,
) -> int:
    listening = False

    def print_address(base_url: str) -> None:
        nonlocal listening
        listening = True
        click.echo(
            f"The simulator listens on {base_url} until Ctrl-C. To use it, paste:\n\n"
            f"export OPENAI_BASE_URL={base_url} OPENAI_API_KEY=simulated\n"
        )

    try:
        await serve(host, port, config, script=script, on_ready=print_address, on_end=on_end)
    except OSError as error:
        if listening:
            raise  # the output failed, not the port
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return 0
