"""Ray: a small one on this machine, or a cluster that is there; and how many workers it has room for."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gar_edge.runtime.errors import GarBackendError

_STORE = 128 << 20  # bytes of shared memory: names of parts and counts are all that goes through it
_OVERHEAD = 512 << 20  # bytes of a worker beside its weights: interpreter, caches, a picture
_PATIENCE = 10.0  # seconds until a cluster must take a connection: Ray itself tries for minutes (seen in 2.60)
_SURROUNDINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # else Ray tells its makers about the run
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a call after the end starts another Ray
    "RAY_worker_niceness": "0",  # else workers run at 15 and hardly get on beside anything: nice gar-label says it too
}
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Share:
    """What one worker takes of its machine."""

    cpus: int
    gpus: int
    memory: int

    @classmethod
    def of(cls, bundle: Path, *, threads: int, gpu: bool) -> Share:
        """For a bundle of this size. threads: 0 for all cores of this machine."""
        weights = sum(one.stat().st_size for one in bundle.iterdir() if one.is_file())
        return cls(threads or os.cpu_count() or 1, int(gpu), 2 * weights + _OVERHEAD)


@contextmanager
def connected(address: str | None, *, cpus: int) -> Iterator[None]:
    """Ray, until the end: the cluster at the address, or one of so many processors on this machine.

    `GarBackendError` where the cluster cannot be reached, or has another version of Ray or Python.
    """
    if address is not None and address != "auto":
        _reach(address)
    before = {name: os.environ.get(name) for name in _SURROUNDINGS}
    os.environ.update({name: value for name, value in _SURROUNDINGS.items() if name not in os.environ})
    import ray

    here = {"num_cpus": cpus, "object_store_memory": _STORE, "_node_ip_address": _LOOPBACK}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(
                address or "local",
                logging_level=logging.ERROR,
                log_to_driver=False,
                configure_logging=True,
                **({} if address else {"include_dashboard": False, **here}),
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        what = f"no cluster of Ray's can be joined at {address}" if address else "Ray cannot be started here"
        raise GarBackendError(f"{what} ({reason})") from None
    try:
        yield
    finally:
        ray.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _reach(address: str) -> None:
    """`GarBackendError` unless somebody listens there."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise GarBackendError(
            f"{address}: no address of a cluster; give HOST:PORT of its head, or auto on a machine of it"
        )
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise GarBackendError(f"no cluster of Ray's can be reached at {address} ({error})") from None


def room(share: Share) -> int:
    """How many workers the living machines have room for; at least one, as long as one could be there at all."""
    import ray

    count = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            fits = [has.get("CPU", 0) // share.cpus, has.get("memory", 0) // share.memory]
            fits += [has.get("GPU", 0) // share.gpus] if share.gpus else []
            count += int(min(fits))
    return count


def has_gpus() -> bool:
    """Whether the cluster has any."""
    import ray

    return bool(ray.cluster_resources().get("GPU", 0) >= 1)
