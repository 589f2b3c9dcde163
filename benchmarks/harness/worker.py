"""A contender's process: reads orders as lines of JSON, takes a sample for each, and prints it as a line of JSON.

It ends when its standard input ends. Every sample uses a new event loop and a new client.
"""

from __future__ import annotations

import argparse
import json
import ssl
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS
from benchmarks.contenders.base import Address, Contender
from benchmarks.harness.cores import settle
from benchmarks.harness.loops import run
from benchmarks.harness.measure import Sample, Server, take_sample
from benchmarks.scenarios.costs import Scenario


def obey(loop: str, client: type[Contender], order: dict[str, Any]) -> Sample:
    """Take the sample that an order requests."""
    scenario = Scenario(**order["scenario"])
    scheme, port = ("https", order["tls_port"]) if scenario.tls else ("http", order["port"])
    context = ssl.create_default_context(cafile=order["authority"]) if scenario.tls else None
    address = Address(f"{scheme}://127.0.0.1:{port}/{scenario.pace}/v1", context, scenario.at_once)
    server = Server(order["port"])
    try:
        return run(loop, partial(take_sample, loop, client, scenario, address, server))
    finally:
        server.close()


def _check_source(source: Path) -> None:
    """Raise if chatscope was not imported from the requested folder."""
    loaded = Path(sys.modules["chatscope"].__file__ or "")
    if source not in loaded.parents:
        raise ImportError(f"chatscope was imported from {loaded}, not from {source}")


def main() -> None:
    """Load the contender, report that, then follow the orders."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("loop")
    parser.add_argument("--core", type=int, help="the core to run on")
    parser.add_argument("--source", type=Path, help="the folder from which chatscope must be imported")
    arguments = parser.parse_args()
    settle(arguments.core)
    client = CONTENDERS[arguments.contender].load(arguments.loop)
    if arguments.source is not None:
        _check_source(arguments.source)
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(obey(arguments.loop, client, json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
