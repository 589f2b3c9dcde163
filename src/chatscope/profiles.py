"""What differs between the servers that speak the endpoint's protocol, as data; and which server a base URL is.

Only requests differ here: replies are read alike from every server, wherever it puts usage and reasoning. A profile
never says where a request goes: the host is always that of the base URL, and so the key goes nowhere else. What it
drops are parameters that leave the reply as it is; one that would change the reply is sent, and the server's answer to
it is worth more than silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

AZURE_API_VERSION: Final = "2024-10-21"
"""What dated Azure URLs get that name no `api-version`: the last one that is generally available, and the first of
those to take `stream_options`. Later features are found at `/openai/v1`, which needs none."""

_MAX_TOKENS: Final = {"max_completion_tokens": "max_tokens"}
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Profile:
    """How a server wants to be asked.

    Attributes:
        name: by which it is chosen.
        hosts: by which it is recognised: these and all below them; one with a port is meant with it.
        renamed: the endpoint's parameters, and what the server calls them.
        dropped: parameters that the server refuses and that do not bear on the reply.
        asks_for_usage: whether streams have to be asked for their usage with `stream_options`.
        key_header: the header that takes the key; `authorization` takes it as a bearer token.
        has_deployments: whether the model is a part of the address, as in Azure's dated API.
    """

    name: str
    hosts: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    dropped: frozenset[str] = frozenset()
    asks_for_usage: bool = True
    key_header: str = "authorization"
    has_deployments: bool = False

    def adapt(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters as this server takes them. A name of its own goes before the endpoint's."""
        if not self.renamed and not self.dropped:
            return parameters
        own = {self.renamed[name]: value for name, value in parameters.items() if name in self.renamed}
        return own | {
            name: value for name, value in parameters.items() if name not in self.renamed and name not in self.dropped
        }

    def address(self, base_url: str, api_version: str | None = None) -> str:
        """Return the base URL that requests are made from; `{model}` in it stands for the model.

        Args:
            base_url: as it was given. Of Azure, the resource alone, with `/openai/deployments/NAME`, or with
                `/openai/v1`.
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
"""A server that behaves as the endpoint's documentation says."""

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
            # Older versions refuse max_completion_tokens as an extra input; all take max_tokens.
            Profile("vllm", renamed=_MAX_TOKENS),
            # It ignored max_completion_tokens until ggml-org/llama.cpp#19831.
            Profile("llama.cpp", renamed=_MAX_TOKENS),
            # It ignores max_completion_tokens (ollama/ollama#7125; docs.ollama.com/api/openai-compatibility). The port
            # is its own.
            Profile("ollama", ("ollama.com", "localhost:11434", "127.0.0.1:11434"), renamed=_MAX_TOKENS),
            # Usage comes unasked, and asking has no effect: openrouter.ai/docs/use-cases/usage-accounting.
            Profile("openrouter", ("openrouter.ai",), asks_for_usage=False),
            Profile(
                # 422, extra_forbidden, for whatever is not in docs.mistral.ai/api (mistralai/client-python,
                # chatcompletionrequest.py). Usage comes with the last chunk, unasked.
                "mistral",
                ("api.mistral.ai",),
                renamed=_MAX_TOKENS | {"seed": "random_seed"},
                dropped=frozenset(
                    {"prompt_cache_options", "prompt_cache_retention", "safety_identifier", "service_tier", "store"}
                    | {"stream_options", "user"}
                ),
                asks_for_usage=False,
            ),
            # console.groq.com/docs/api-reference. Usage comes under x_groq as well, asked for or not.
            Profile("groq", ("api.groq.com",), dropped=frozenset({"prompt_cache_key", "store"})),
            # api-docs.deepseek.com/api/create-chat-completion knows max_tokens only.
            Profile("deepseek", ("api.deepseek.com",), renamed=_MAX_TOKENS),
        )
    }
)


def find_profile(name: str | None, base_url: str) -> Profile:
    """Return the profile of that name, or else the one that the base URL's host belongs to.

    Raises:
        ValueError: there is none of that name; the error names those that there are.
    """
    if name is not None:
        if not isinstance(name, str) or name not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}, not {name!r}")
        return PROFILES[name]
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # it is refused, with the reason, where the address is made
        return NO_PROFILE
    for profile in PROFILES.values():
        for known in profile.hosts:
            at, _, its_port = known.partition(":")
            if (host == at or host.endswith(f".{at}")) and (not its_port or its_port == str(port)):
                return profile
    return NO_PROFILE
