"""The import of Ray. Ray is an extra, so only this file imports it, and only when it is used.

Its values are `Any`, because its types are not strict, and do not exist if it is not installed.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any


def ray_module() -> Any:
    """Return the module `ray`.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ImportError("this needs Ray: pip install 'chatscope[ray]'") from error


def connect(address: str) -> bool:
    """Connect this process to a cluster, unless it is connected already. Return whether this call connected it. Blocks.

    Args:
        address: `local` starts one on this machine; `auto`, `HOST:PORT` and `ray://HOST:PORT` are Ray's own.

    Raises:
        ConnectionError: there is no cluster at that address.
        ImportError: Ray is not installed.
    """
    ray = ray_module()
    if ray.is_initialized():
        return False
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConnectionError(f"no Ray cluster at {address}: {error}") from error
    return True


def count_nodes() -> int:
    """Return how many nodes of the cluster are alive. Blocks."""
    return sum(node["Alive"] for node in ray_module().nodes())


def beside_this_process() -> Any:
    """Return the scheduling strategy that places an actor on this process's node, if there is room."""
    ray = ray_module()
    strategies = import_module("ray.util.scheduling_strategies")
    return strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
