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

    def __init__(self, served: Served, *, hung_up: Callable[[], None] | None = None) -> None:
        """hung_up: what SIGHUP does; else it stops, too."""
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
        self._hung_up = hung_up
        self._cutting: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Take no more; called again while answers are in the making: wait no more either."""
        service = self._served.service
        if self.should_exit:
            service.cut_off()
            return
        self.should_exit = service.admission.stopping = True
        self._cutting = asyncio.get_running_loop().call_later(service.limits.stop_seconds, service.cut_off)
        service.log.event("stopping", inside=service.admission.inside)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own would end the process by the signal again. Once this is over, none ends it otherwise."""
        loop = asyncio.get_running_loop()
        handlers = {signal.SIGTERM: self.stop, signal.SIGINT: self.stop}
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = self._hung_up or self.stop
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
            if self._cutting is not None:
                self._cutting.cancel()


def bound(host: str, port: int) -> socket.socket:
    """A socket with this address, on which nobody listens yet; `GarError` where it cannot be had."""
    host = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise GarError(f"{host}: cannot be listened on ({error.strerror or error})") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        raise GarError(
            f"port {port} of {host} cannot be had ({error.strerror or error}); choose another with --port"
        ) from None
    return found


def run(
    served: Served,
    address: socket.socket,
    *,
    started: Callable[[], None] = lambda: None,
    hung_up: Callable[[], None] | None = None,
) -> None:
    """Serve until a signal says to stop. started: called when questions are taken. hung_up: what SIGHUP does."""

    async def serve() -> None:
        server = Server(served, hung_up=hung_up)
        serving = asyncio.create_task(server.serve(sockets=[address]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            started()
        await serving

    asyncio.run(serve())
