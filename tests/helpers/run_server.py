"""gar-serve with settings that its command does not have, for tests: `run_server.py SETTINGS`, as JSON.

bundle; port; limits: by name; keys: name to key; hosts, origins; step: seconds that a run of the decoder takes at
least; queue, batch, cache_bytes; texts: whether the log has them.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from gar_edge.runtime import Gar
from gar_edge.runtime.gar import CACHE_BYTES
from gar_edge.runtime.serve.access import Access, key_digest
from gar_edge.runtime.serve.app import create_app
from gar_edge.runtime.serve.limits import Limits
from gar_edge.runtime.serve.line_writer import LineWriter
from gar_edge.runtime.serve.log import RequestLog
from gar_edge.runtime.serve.server import bound, run


def main(settings: dict[str, Any]) -> None:
    """Serve until told to stop."""
    limits = Limits(**settings.get("limits", {}))
    queue, cache_bytes = settings.get("queue", 64), settings.get("cache_bytes", CACHE_BYTES)
    loaded = Gar.load(
        settings["bundle"], threads=1, queue=queue, batch=settings.get("batch", 8), cache_bytes=cache_bytes
    )
    with loaded as gar, LineWriter(sys.stdout) as write:
        if step := settings.get("step"):
            slow(gar, step)
        keys = {key_digest(key): name for name, key in settings.get("keys", {}).items()}
        access = Access(keys, frozenset(settings.get("hosts", ())), frozenset(settings.get("origins", ())))
        log = RequestLog(write, texts=settings.get("texts", False))
        served = create_app(gar, queue=queue, access=access, limits=limits, log=log)
        listening = bound("127.0.0.1", settings.get("port", 0))
        port = listening.getsockname()[1]
        run(served, listening, started=lambda: print(f"at http://127.0.0.1:{port}", file=sys.stderr, flush=True))


def slow(gar: Gar, seconds: float) -> None:
    """As `slowed.slow`, for good."""
    bind = gar.pipeline.decoder.session.bind

    def slowed(*arguments: Any) -> Any:
        run_once = bind(*arguments)
        return lambda: (time.sleep(seconds), run_once())

    gar.pipeline.decoder.session.bind = slowed  # type: ignore[method-assign]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
