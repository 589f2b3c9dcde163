"""Beyond one machine: the same requests as a stage of Ray Data, with one limit for all workers (extra `ray`).

`ChatMap` is a class for `Dataset.map_batches`; `SharedLimit` is the limit; `run_batch_on_ray` runs a batch in shards,
and `run_load_on_ray` a load test from several nodes.

Here: what runs in Ray's processes, and how they reach each other. Not here: the limit's arithmetic
(`chatscope._limits`), and how outcomes are recorded (`chatscope.batch`).
"""

from typing import TYPE_CHECKING

from chatscope import load_at_first_use

if TYPE_CHECKING:
    from chatscope.ray.chat_map import ChatMap as ChatMap
    from chatscope.ray.limit import SharedLimit as SharedLimit
    from chatscope.ray.load_nodes import run_load_on_ray as run_load_on_ray
    from chatscope.ray.sharded_run import ShardedRun as ShardedRun
    from chatscope.ray.sharded_run import run_batch_on_ray as run_batch_on_ray

_HOMES = {
    "ChatMap": "chat_map",
    "SharedLimit": "limit",
    "ShardedRun": "sharded_run",
    "run_batch_on_ray": "sharded_run",
    "run_load_on_ray": "load_nodes",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - one table says what is public  # pyright: ignore[reportUnsupportedDunderAll]

__getattr__, __dir__ = load_at_first_use(__name__, _HOMES)
