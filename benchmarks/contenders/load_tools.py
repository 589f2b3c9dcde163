"""Other load generators, run as commands. Environment variables hold their paths; tools without one are skipped.

Each measures the same server with the same load: a number of streams for a number of seconds. They need a tokenizer
although the server counts the tokens, so a tokenizer with a minimal vocabulary is written for them. Tried with guidellm
0.8.1, aiperf 0.13.0 and vllm[bench] 0.33.0, each in a separate environment (`uv venv; uv pip install guidellm`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.cores import on_core
from benchmarks.harness.processes import ROOT, environment

TOOL_SECONDS: Final = 240.0
"""The time limit of a tool, in seconds. It is long because some load a machine-learning framework before they start."""

_PROMPT: Final = "Say hello to the world, please"


@dataclass(frozen=True, slots=True)
class Shape:
    """The load for a tool.

    Attributes:
        base_url: the server's, with `/v1`.
        streams: how many at a time.
        seconds: how long the load lasts.
        tokens: the length of each response.
        folder: for the tool's files.
    """

    base_url: str
    streams: int
    seconds: int
    tokens: int
    folder: Path

    @property
    def root(self) -> str:
        """The server's address without `/v1`."""
        return self.base_url.removesuffix("/v1")

    @property
    def tokenizer(self) -> Path:
        """The folder of a tokenizer that knows one word."""
        return self.folder / "tokenizer"

    def write_inputs(self) -> None:
        """Write prompts and the tokenizer."""
        self.tokenizer.mkdir(exist_ok=True)
        word_level = {"type": "WordLevel", "vocab": {"<unk>": 0, "token": 1}, "unk_token": "<unk>"}
        unknown: dict[str, Any] = {"id": 0, "content": "<unk>", "special": True}
        unknown |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        split = {"type": "WhitespaceSplit"}
        tokenizer: dict[str, Any] = {
            "version": "1.0",
            "added_tokens": [unknown],
            "pre_tokenizer": split,
            "model": word_level,
        }
        tokenizer |= dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
        (self.tokenizer / "tokenizer.json").write_text(json.dumps(tokenizer))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "model_max_length": 100_000}
        (self.tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
        lines = [{"prompt": _PROMPT, "output_tokens": self.tokens}] * 2000
        (self.folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (self.folder / "texts.jsonl").write_text(f"{json.dumps({'text': _PROMPT})}\n" * 500)


@dataclass(frozen=True, slots=True)
class Figures:
    """A tool's figures, in seconds. A gap is the time between two chunks of one response."""

    ttft_p50: float
    ttft_p99: float
    gap_p50: float
    gap_p99: float
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadTool:
    """A load generator.

    Attributes:
        name: its name.
        variable: the environment variable with the path of its command.
        arguments: the command's arguments for a shape.
        read: reads its figures, in seconds, from the shape's folder.
        settings: environment variables for it.
    """

    name: str
    variable: str
    arguments: Callable[[Shape], Sequence[str]]
    read: Callable[[Shape], Figures]
    settings: Mapping[str, str]

    @property
    def path(self) -> str | None:
        """The path of its command; `None` if the environment does not hold one."""
        return sys.executable if self.name == "chatscope" else os.environ.get(self.variable)

    def run(self, shape: Shape, core: int | None) -> Figures:
        """Run it on a core, and return its figures with the CPU seconds of its processes, including their start.

        Raises:
            ChildProcessError: it failed or took too long; the message has the last lines of its output.
        """
        log = shape.folder / "log.txt"
        with log.open("wb") as output, on_core(core):
            process = subprocess.Popen(
                [self.path or "", *self.arguments(shape)],
                cwd=ROOT if self.name == "chatscope" else shape.folder,
                env=environment() | {"OPENAI_API_KEY": ""} | dict(self.settings),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + TOOL_SECONDS
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(0.1)
        process.returncode = os.waitstatus_to_exitcode(status)
        try:
            found = self.read(shape)
        except (OSError, KeyError, ValueError) as error:
            last = " | ".join(log.read_text(errors="replace").split("\n")[-6:])
            raise ChildProcessError(f"status {process.returncode}; {error!r}; {last}") from error
        cpu_seconds = usage.ru_utime + usage.ru_stime
        return Figures(found.ttft_p50, found.ttft_p99, found.gap_p50, found.gap_p99, cpu_seconds)


def _json_of(path: Path) -> Any:
    return json.loads(path.read_text())


def _chatscope_figures(shape: Shape) -> Figures:
    metrics = _json_of(shape.folder / "out" / "summary.json")["stages"][0]["summary"]["metrics"]
    values = [metrics[name]["percentiles"][at]["value"] for name in ("ttft_service", "icl") for at in ("p50", "p99")]
    return Figures(*values)


def _guidellm_figures(shape: Shape) -> Figures:
    metrics = _json_of(shape.folder / "guidellm.json")["benchmarks"][0]["metrics"]
    names = ("time_to_first_token_ms", "inter_token_latency_ms")
    values = [metrics[name]["successful"]["percentiles"][at] / 1e3 for name in names for at in ("p50", "p99")]
    return Figures(*values)


def _aiperf_figures(shape: Shape) -> Figures:
    metrics = _json_of(shape.folder / "aiperf" / "profile_export_aiperf.json")
    names = ("time_to_first_token", "inter_chunk_latency")
    return Figures(*[metrics[name][at] / 1e3 for name in names for at in ("p50", "p99")])


def _vllm_figures(shape: Shape) -> Figures:
    result = _json_of(shape.folder / "vllm.json")
    return Figures(*[result[f"{at}_{name}_ms"] / 1e3 for name in ("ttft", "itl") for at in ("p50", "p99")])


TOOLS: Final = (
    LoadTool(
        "chatscope",
        "",
        lambda shape: [
            *("-m", "chatscope", "load", "--base-url", shape.base_url, "--model", "m", "--quiet", "--workers", "1"),
            *(
                "--concurrency",
                str(shape.streams),
                "--duration",
                str(shape.seconds),
                "--out",
                str(shape.folder / "out"),
            ),
            *("--output-tokens", str(shape.tokens), "--prompt-tokens", "16", "--no-calibrate-prompts"),
        ],
        _chatscope_figures,
        {},
    ),
    LoadTool(
        "guidellm (its gap is a response's mean)",
        "CHATSCOPE_BENCH_GUIDELLM",
        lambda shape: [
            *("run", "--backend", f"kind=openai_http,target={shape.root},model=m,validate_backend=false"),
            *("--profile", f"kind=concurrent,streams={shape.streams}"),
            *("--constraint", f"kind=max_duration,seconds={shape.seconds}"),
            *("--data", f"kind=json_file,path={shape.folder / 'prompts.jsonl'}"),
            *("--tokenizer", f"kind=hf_auto,model={shape.tokenizer}"),
            *("--output", f"kind=json,path={shape.folder / 'guidellm.json'}", "--disable-console-interactive"),
        ],
        _guidellm_figures,
        {"GUIDELLM__MAX_WORKER_PROCESSES": "1"},
    ),
    LoadTool(
        "aiperf",
        "CHATSCOPE_BENCH_AIPERF",
        lambda shape: [
            *("profile", "-m", "m", "-u", shape.root, "--endpoint-type", "chat", "--streaming", "--ui", "none"),
            *("--tokenizer", str(shape.tokenizer), "--use-server-token-count"),
            *("--input-file", str(shape.folder / "texts.jsonl"), "--custom-dataset-type", "single_turn"),
            *("--concurrency", str(shape.streams), "--benchmark-duration", str(shape.seconds)),
            *("--benchmark-grace-period", "2", "--extra-inputs", f"max_tokens:{shape.tokens}"),
            *("--artifact-dir", str(shape.folder / "aiperf")),
        ],
        _aiperf_figures,
        {},
    ),
    LoadTool(
        "vllm bench serve",
        "CHATSCOPE_BENCH_VLLM",
        lambda shape: [
            *("bench", "serve", "--backend", "openai-chat", "--base-url", shape.root, "--model", "m"),
            *("--endpoint", "/v1/chat/completions", "--tokenizer", str(shape.tokenizer), "--dataset-name", "custom"),
            *("--dataset-path", str(shape.folder / "prompts.jsonl"), "--custom-output-len", str(shape.tokens)),
            *("--num-prompts", str(shape.streams * shape.seconds), "--max-concurrency", str(shape.streams)),
            *("--percentile-metrics", "ttft,itl", "--metric-percentiles", "50,99", "--save-result"),
            *("--result-dir", str(shape.folder), "--result-filename", "vllm.json", "--skip-chat-template"),
        ],
        _vllm_figures,
        {},
    ),
)
