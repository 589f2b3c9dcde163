"""A Ray cluster of several nodes on this machine, for the benchmarks and the tests of `chatscope.ray`."""

from __future__ import annotations

import os
from importlib import import_module
from types import TracebackType
from typing import Any, Final, Self

SMALL: Final = {"object_store_memory": 80 * 2**20}

SETTINGS: Final = {
    "RAY_AUTH_MODE": "disabled",  # do not write a token to the home folder
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # by default its workers run at the lowest priority
    "RAY_health_check_period_ms": "500",  # detect a dead node quickly
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_initial_delay_ms": "0",
}
"""Environment variables that Ray's processes read when they start."""


class RayCluster:
    """A cluster of a head without CPUs, on which only the limit's actor runs, and other nodes.

    Args:
        nodes: how many nodes there are besides the head.

    Attributes:
        ray: the module `ray`.
        address: the cluster's address.
    """

    def __init__(self, nodes: int = 2) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        self.ray: Any = import_module("ray")
        head = {"num_cpus": 0, "include_dashboard": False, **SMALL}
        self._cluster: Any = import_module("ray.cluster_utils").Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        for _ in range(nodes):
            self.add_node()

    def __enter__(self) -> Self:
        self.ray.init(self.address, log_to_driver=False, logging_level="ERROR", namespace="chatscope")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.ray.shutdown()
        finally:
            self._cluster.shutdown()

    def add_node(self) -> Any:
        """Start a node and return it."""
        return self._cluster.add_node(num_cpus=4, **SMALL)

    def node_of(self, actor_class: str) -> Any:
        """Return a node on which an actor of the class runs. Ray's public list of actors needs its dashboard."""
        actors = import_module("ray._private.state").actors().values()
        running = {
            each["Address"]["NodeID"]
            for each in actors
            if each["State"] == "ALIVE" and each["ActorClassName"] == actor_class
        }
        return next(node for node in self._cluster.list_all_nodes() if node.node_id in running)

    def kill(self, node: Any) -> None:
        """Kill a node and everything that runs on it."""
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_limit(self) -> None:
        """Kill the actor that holds the limit of the running batch."""
        for each in self.ray.util.list_named_actors(all_namespaces=True):
            if each["name"].startswith("chatscope-limit-"):
                self.ray.kill(self.ray.get_actor(each["name"], namespace=each["namespace"]))
