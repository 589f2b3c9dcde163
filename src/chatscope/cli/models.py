"""`chatscope models`: the names of the models that a server lists, one per line."""

from __future__ import annotations

import os
from typing import Final

import click
import httpx
import msgspec

from chatscope import ChatClient
from chatscope.cli.terminal import without_controls
from chatscope.transport import HTTPTransport

TIMEOUT: Final = 20.0
"""Seconds of silence after which the server counts as down. A healthy server lists its models at once."""


async def models(base_url: str | None) -> int:
    """Print the models, or why they cannot be listed, and return the exit code."""
    try:
        for name in await _listed(base_url):
            click.echo(without_controls(name))
    except click.ClickException as error:  # here, as a task group would wrap it
        error.show()
        return error.exit_code
    return 0


async def _listed(base_url: str | None) -> list[str]:
    try:
        url = httpx.URL(ChatClient("", base_url=base_url).base_url)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    url = url.copy_with(path=f"{url.path.rstrip('/')}/models")
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(transport=HTTPTransport(), timeout=TIMEOUT) as client:
        try:
            response = await client.get(url, headers=headers)
        except httpx.HTTPError as error:
            raise click.ClickException(f"no answer to GET {url}: {error}") from error
    return _names(response, url)


def _names(response: httpx.Response, url: httpx.URL) -> list[str]:
    if response.is_success:
        try:
            return [str(item["id"]) for item in msgspec.json.decode(response.content)["data"]]
        except (msgspec.DecodeError, KeyError, TypeError):
            raise click.ClickException(f"GET {url} did not answer with a list of models") from None
    words = " ".join(response.text.split())[:200]
    hint = "; does base_url lack /v1?" if response.status_code == 404 and "/v" not in url.path else ""
    raise click.ClickException(f"HTTP {response.status_code}: {words} (GET {url}{hint})")
