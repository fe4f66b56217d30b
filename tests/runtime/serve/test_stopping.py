"""SIGTERM: no more is taken, what is here is finished or cut off at the deadline, and the exit code is 0."""

from __future__ import annotations

import threading
import time

from helpers.serving import Reply, Running, mask, serving

DESCRIBE = {"regions": [mask("scene_1", 0)]}


def _asking(
    server: Running, key: str, count: int, body: dict[str, object]
) -> tuple[list[threading.Thread], list[Reply]]:
    replies: list[Reply] = []

    def ask() -> None:
        replies.append(server.post(f"/v1/scenes/{key}/describe", body))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, replies


def _wait_for(server: Running, inside: int) -> None:
    while True:
        page = server.ask("GET", "/metrics").body.decode()
        counts = dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith(("gar_waiting", "gar_in_")))
        if sum(map(float, counts.values())) >= inside:
            return
        time.sleep(0.02)


def test_what_was_accepted_is_answered() -> None:
    with serving(step=0.05, batch=2) as server:
        key = server.open()
        whole = server.post(f"/v1/scenes/{key}/describe", DESCRIBE).json["answers"][0]
        threads, replies = _asking(server, key, 8, DESCRIBE)
        _wait_for(server, 8)
        assert server.stop() == 0
        for thread in threads:
            thread.join()
        assert [reply.json["answers"][0]["tokens"] for reply in replies] == [whole["tokens"]] * 8


def test_at_the_deadline_answers_are_cut_off_and_told() -> None:
    with serving(step=0.2, batch=2, limits={"stop_seconds": 1.0}) as server:
        key = server.open()
        threads, replies = _asking(server, key, 3, DESCRIBE)
        streams, streamed = _asking(server, key, 1, DESCRIBE | {"stream": True})
        _wait_for(server, 4)
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 4
        for thread in (*threads, *streams):
            thread.join()
        reasons = [reply.json["answers"][0]["finish_reason"] for reply in replies]
        assert len(reasons) == 3
        assert set(reasons) <= {"cancelled", "stop"}
        assert "cancelled" in reasons
        assert streamed[0].events[-1] == ("end", {})


def test_while_it_stops_it_takes_no_more() -> None:
    """A connection that is open already is told so; readiness says it too."""
    import http.client
    import signal

    with serving(step=0.1, batch=1) as server:
        key = server.open()
        threads, _ = _asking(server, key, 2, DESCRIBE)
        _wait_for(server, 2)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection = http.client.HTTPConnection(*server.address, timeout=5)
        try:
            connection.request("GET", "/readyz")
            assert connection.getresponse().status == 503
        except ConnectionError:
            pass  # nothing listens any more
        finally:
            connection.close()
        assert server.process.wait(20) == 0
        for thread in threads:
            thread.join()
