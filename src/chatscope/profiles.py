"""The differences between servers of the endpoint's protocol, as data, and how a base URL selects one of them.

Only requests differ. Responses from every server are parsed the same way, wherever it puts usage and reasoning. A
profile never changes the host of a request, so the key goes nowhere else. It drops only parameters that do not change
the response. A parameter that would change it is sent even if the server refuses it: an error tells the user more than
silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

AZURE_API_VERSION: Final = "2024-10-21"
"""Added to dated Azure URLs that name no `api-version`. It is the latest generally available version, and the first of
them to accept `stream_options`. Later features are at `/openai/v1`, which needs no version."""

_MAX_TOKENS: Final = {"max_completion_tokens": "max_tokens"}
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_REASONING: Final = frozenset({"reasoning", "reasoning_content", "reasoning_details"})


@dataclass(frozen=True, slots=True)
class Profile:
    """The form in which a server wants its requests.

    Attributes:
        name: the name under which it is chosen.
        hosts: the hosts that select the profile, with all their subdomains; on any port unless one is given.
        renamed: the endpoint's parameters, with the server's names for them.
        dropped: parameters that the server refuses and that do not change the response.
        dropped_from_messages: fields of assistant messages that the server refuses in the messages sent back to it.
        asks_for_usage: whether a stream reports its usage only on request, by `stream_options`.
        key_header: the header that carries the key. In `authorization` it is a bearer token.
        has_deployments: whether the model is a part of the URL, as in Azure's dated API.
    """

    name: str
    hosts: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    dropped: frozenset[str] = frozenset()
    dropped_from_messages: frozenset[str] = frozenset()
    asks_for_usage: bool = True
    key_header: str = "authorization"
    has_deployments: bool = False

    def adapt(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the parameters under this server's names. If both names of one are given, the server's name wins."""
        if not self.renamed and not self.dropped:
            return parameters
        own = {self.renamed[name]: value for name, value in parameters.items() if name in self.renamed}
        return own | {
            name: value for name, value in parameters.items() if name not in self.renamed and name not in self.dropped
        }

    def adapt_messages(self, messages: Sequence[Any]) -> Sequence[Any]:
        """Return the messages without the fields that this server refuses. Invalid messages are returned unchanged."""
        refused = self.dropped_from_messages
        if not refused or not isinstance(messages, list | tuple):
            return messages
        return [
            message
            if not isinstance(message, Mapping) or refused.isdisjoint(message)
            else {name: value for name, value in message.items() if name not in refused}
            for message in messages
        ]

    def address(self, base_url: str, api_version: str | None = None) -> str:
        """Return the base URL of requests; `{model}` in it stands for the model.

        Args:
            base_url: as given by the caller. Azure's may be the resource alone, or end with
                `/openai/deployments/NAME` or `/openai/v1`.
            api_version: for Azure's dated API, if the URL names none.
        """
        if not self.has_deployments:
            return base_url
        scheme, host, path, query, _ = urlsplit(base_url)
        path = path.rstrip("/")
        if not path or path.endswith("/openai"):
            path = f"{path.removesuffix('/openai')}/openai/deployments/{{model}}"
        if "/deployments/" in path and "api-version=" not in query:
            query = "&".join(part for part in (query, f"api-version={api_version or AZURE_API_VERSION}") if part)
        return urlunsplit((scheme, host, path, query, ""))


NO_PROFILE: Final = Profile("")
"""The profile of a server that follows the endpoint's documentation."""

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile("openai", ("api.openai.com",)),
            Profile(
                # learn.microsoft.com/azure/foundry/openai: reference, and api-version-lifecycle for /openai/v1.
                "azure",
                ("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"),
                key_header="api-key",
                has_deployments=True,
            ),
            # Older versions refuse max_completion_tokens as an extra input. All versions accept max_tokens.
            Profile("vllm", renamed=_MAX_TOKENS),
            # Ignored max_completion_tokens until ggml-org/llama.cpp#19831.
            Profile("llama.cpp", renamed=_MAX_TOKENS),
            # Ignores max_completion_tokens (ollama/ollama#7125; docs.ollama.com/api/openai-compatibility). 11434 is its
            # registered port.
            Profile("ollama", ("ollama.com", "localhost:11434", "127.0.0.1:11434"), renamed=_MAX_TOKENS),
            # Always reports usage, requested or not: openrouter.ai/docs/use-cases/usage-accounting.
            Profile("openrouter", ("openrouter.ai",), asks_for_usage=False),
            Profile(
                # Refuses every parameter that docs.mistral.ai/api does not list (422, extra_forbidden; mistralai/
                # client-python, chatcompletionrequest.py), and fields of messages likewise (charmbracelet/crush#1590).
                # Reasoning is sent in both directions as parts of the content. Always reports usage, in the last chunk.
                "mistral",
                ("api.mistral.ai",),
                renamed=_MAX_TOKENS | {"seed": "random_seed"},
                dropped=frozenset(
                    {"prompt_cache_options", "prompt_cache_retention", "safety_identifier", "service_tier", "store"}
                    | {"stream_options", "user"}
                ),
                dropped_from_messages=_REASONING,
                asks_for_usage=False,
            ),
            Profile(
                # console.groq.com/docs/api-reference. Refuses reasoning in messages, under whatever name ("property
                # 'reasoning' is unsupported", karthink/gptel#774; reasoning_content, janhq/jan#8136).
                "groq",
                ("api.groq.com",),
                dropped=frozenset({"prompt_cache_key", "store"}),
                dropped_from_messages=_REASONING,
            ),
            # api-docs.deepseek.com/api/create-chat-completion lists max_tokens only. Reasoning is sent back: with tool
            # calls, the server refuses messages without it (api-docs.deepseek.com/guides/thinking_mode). Otherwise it
            # ignores the reasoning.
            Profile("deepseek", ("api.deepseek.com",), renamed=_MAX_TOKENS),
        )
    }
)


def find_profile(name: str | None, base_url: str) -> Profile:
    """Return the profile with a name. Without a name, return the profile of the base URL's host.

    Raises:
        ValueError: no profile has this name. The error lists the known names.
    """
    if name is not None:
        if not isinstance(name, str) or name not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}, not {name!r}")
        return PROFILES[name]
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # the check of the URL reports this, with the reason
        return NO_PROFILE
    for profile in PROFILES.values():
        for known in profile.hosts:
            domain, _, known_port = known.partition(":")
            if (host == domain or host.endswith(f".{domain}")) and (not known_port or known_port == str(port)):
                return profile
    return NO_PROFILE
