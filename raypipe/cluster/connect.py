"""Connects to a Ray cluster, or starts a local Ray."""

import logging
import os
import socket

from raypipe.cluster.head import watch_head
from raypipe.cluster.machines import local_cpus
from raypipe.config import Cluster

KEEPALIVE = {"RAY_grpc_client_keepalive_time_ms": "60000", "RAY_grpc_client_keepalive_timeout_ms": "20000"}
"""Environment with which a process that waits for another one asks each minute whether it is still there, which Ray's
servers bear, and waits 20 seconds for the answer; by itself Ray asks after 5 minutes and waits 2. Ray's own check of
nodes doesn't end such a wait: what was on a host whose link is cut came back to nobody (benchmarks/hosts.md)."""


def cluster_address(cluster: Cluster) -> str | None:
    """Address of the cluster to run on; None for a local Ray."""
    return cluster.address or os.environ.get("RAY_ADDRESS")


def connect(cluster: Cluster) -> None:
    """Connects to a Ray cluster, or starts a local one, unless this process has one already."""
    for name, value in KEEPALIVE.items():
        os.environ.setdefault(name, value)  # Ray reads them as it is imported
    import ray  # takes seconds

    if ray.is_initialized():
        return
    if address := cluster_address(cluster):
        ray.init(address=address, log_to_driver=True)
        watch_head()
        return
    # Workers inherit this. Threads that wait by spinning would take the cores from those that work: training was seen
    # three times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # No node of a local Ray is taken away with notice, so no process needs to watch for one beside each training.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Ray Train asks the dashboard's server once a second whether the training still lives. Without one it complains as
    # often; and left to find one, it was seen to ask that of another Ray on the machine and to end the training.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
    ray.init(
        address="local",
        num_cpus=cluster.num_cpus or local_cpus(),
        object_store_memory=cluster.object_store_memory,
        include_dashboard=True,
        dashboard_host="127.0.0.1",  # whoever reaches it can run code
        dashboard_port=port,
        log_to_driver=True,
        logging_level=logging.WARNING,
    )
