"""gar-serve on many machines: its application as a deployment of Ray Serve, with replicas and a health check.

    pip install 'gar-edge[cpu,serve]' 'ray[serve]'
    python examples/serve_ray.py --replicas 2                     # on this machine, until Ctrl-C
    python examples/serve_ray.py --replicas 8 --address auto      # on a cluster, from a machine of it

Ray's proxy sends each request to a replica of its choice, and another replica takes over where one dies. A scene lives
in the replica that opened it: over /v1/scenes a client may meet one that does not know it (404, post the picture
again). /v1/chat/completions carries its picture with it, and works with any number of replicas.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray tells its makers about the cluster

import ray
from ray import serve

from gar_edge.runtime import Gar
from gar_edge.runtime.bundle.shipped import usual_bundle
from gar_edge.runtime.serve.access import Access
from gar_edge.runtime.serve.app import create_app

QUEUE = 64  # requests that a replica holds at once, in the making or waiting


@serve.deployment(max_ongoing_requests=QUEUE, health_check_period_s=2, health_check_timeout_s=10)
@serve.ingress()
class Regions:
    """A model and the server's application around it, in a process of its own."""

    def __init__(self, model: str, threads: int, names: list[str]) -> None:
        self._gar = Gar.load(model, threads=threads, queue=QUEUE)
        self._names = frozenset(names)

    def __serve_build_asgi_app__(self) -> Any:
        return create_app(self._gar, queue=QUEUE, access=Access(hosts=self._names)).app

    def check_health(self) -> None:
        """Raises once the engine is gone: Ray then starts another replica."""
        assert self._gar.pipeline


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("-m", "--model", type=Path, default=None, help="bundle folder, the same on every machine")
    options.add_argument("--replicas", type=int, default=2)
    options.add_argument("--threads", type=int, default=1, help="of each replica, which reserves so many processors")
    options.add_argument("--gpus", type=float, default=0, help="of each replica")
    options.add_argument("--address", default=None, help="of a Ray cluster; without it, this machine alone")
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=8000)
    options.add_argument("--name", action="append", default=[], help="a further name that the server is asked under")
    given = options.parse_args()

    here = {} if given.address else {"num_cpus": given.replicas * given.threads, "include_dashboard": False}
    ray.init(address=given.address or "local", **here)
    serve.start(http_options={"host": given.host, "port": given.port})
    takes = {"num_cpus": given.threads, "num_gpus": given.gpus}
    deployment = Regions.options(num_replicas=given.replicas, ray_actor_options=takes)
    model = str((given.model or usual_bundle()).resolve())
    serve.run(deployment.bind(model, given.threads, given.name), name="regions", route_prefix="/")
    print(f"at http://{given.host}:{given.port}", flush=True)

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()


if __name__ == "__main__":
    main()
