"""Runs the application by uvicorn: signals, stopping, and connections with limits."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.serve.app import Served
from gar_edge.runtime.serve.connections import limited

_MARGIN = 5.0  # seconds for what was cut off to be told


class Server(uvicorn.Server):
    """Stops taking questions at the first SIGTERM or SIGINT, finishes those that are here, and ends without error.

    A second signal, or the deadline, cuts off the answers in the making: they are told as far as they came.
    """

    def __init__(self, served: Served) -> None:
        limits = served.service.limits
        super().__init__(
            uvicorn.Config(
                served.app,
                http=limited(limits),
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # a client could name any address as its own
                server_header=False,
                timeout_keep_alive=int(limits.idle_seconds),
                timeout_graceful_shutdown=int(limits.stop_seconds + _MARGIN),
                backlog=limits.connections,
                h11_max_incomplete_event_size=1 << 16,
            )
        )
        self._served = served
        self._cutting: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Take no more; called again: wait no more either."""
        service = self._served.service
        if not service.admission.stopping:
            service.admission.stopping = True
            service.log.event("stopping", inside=service.admission.inside)
            loop = asyncio.get_running_loop()
            self._cutting = loop.call_later(service.limits.stop_seconds, service.desk.cut_off)
            self.should_exit = True
        else:
            service.desk.cut_off()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own would end the process by the signal again."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        before = [signal.getsignal(one) for one in signals]
        for one in signals:
            loop.add_signal_handler(one, self.stop)
        try:
            yield
        finally:
            for one, handler in zip(signals, before, strict=True):
                loop.remove_signal_handler(one)
                signal.signal(one, handler)
            if self._cutting is not None:
                self._cutting.cancel()


def listen(host: str, port: int, *, backlog: int) -> socket.socket:
    """A socket that takes connections; `GarError` where the address or port cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise GarError(f"{host}: cannot be listened on ({error.strerror or error})") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        raise GarError(
            f"port {port} of {host} cannot be had ({error.strerror or error}); choose another with --port"
        ) from None
    listening.setblocking(False)
    return listening


def run(served: Served, listening: socket.socket, *, started: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal says to stop. started: called when questions are taken."""

    async def serve() -> None:
        server = Server(served)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            started()
        await serving

    asyncio.run(serve())
