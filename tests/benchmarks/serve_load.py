"""What gar-serve costs beside the scheduler itself, and whether it loses or crosses anything under load.

    python tests/benchmarks/serve_load.py load -m NANO            # 64 clients, 2,000 mixed requests
    python tests/benchmarks/serve_load.py flat -m NANO            # memory over 12,000 requests
    python tests/benchmarks/serve_load.py share -m NANO           # one client: the server's own share of a request
    python tests/benchmarks/serve_load.py memory -m NANO          # resident memory beside gar-run's

load: the same requests asked by 64 threads of `Gar` directly, one at a time over HTTP, and by 64 clients over HTTP; the
clients are threads of another process on the same cores. Every answer is compared with the one that its picture,
regions and question have alone. share: what a client waits less what the answer says it took; and, of streams, from a
token's time in the server to its arrival at the client.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.run_server import slow
from helpers.serving import EXAMPLES, Running, data_url, mask, serving

from gar_edge.runtime import Choice, Gar, Scene

app = typer.Typer(add_completion=False)
Model = Annotated[Path, typer.Option("-m", "--model")]
MASKS = {"scene_1": 5, "scene_2": 3}
ONE = ("What colour is <Prompt0>?", "What shape is <Prompt0>?", None)
TWO = ("Is <Prompt0> larger or smaller than <Prompt1>?", "Is <Prompt0> left of <Prompt1>?")
CHOICES = ["red", "pink", "green", "cyan"]


@dataclass(frozen=True)
class Wanted:
    """One request: of equal ones the answers are equal."""

    kind: str  # ask, stream, choose, openai
    picture: str
    question: str | None
    masks: tuple[int, ...]


@dataclass
class Tally:
    """What came of requests."""

    right: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def draw(count: int, seed: int) -> list[Wanted]:
    """Mixed requests."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        picture = chance.choice(sorted(MASKS))
        kind = chance.choice(("ask", "ask", "stream", "choose", "openai"))
        question = chance.choice(ONE + TWO) if kind not in ("choose",) else ONE[0]
        masks = chance.sample(range(MASKS[picture]), 2 if question in TWO else 1)
        found.append(
            Wanted("describe" if question is None and kind == "ask" else kind, picture, question, tuple(masks))
        )
    return found


def ask_directly(scenes: dict[str, Scene], wanted: Wanted) -> str:
    """The answer by `Gar`, masks as bytes, as requests bring them."""
    scene = scenes[wanted.picture]
    files = [(EXAMPLES / f"{wanted.picture}_mask_{number}.png").read_bytes() for number in wanted.masks]
    regions = dict(enumerate(files))
    if wanted.kind == "choose":
        return str(scene.choose(wanted.question, regions, CHOICES).best)
    if wanted.question is None:
        return scene.describe(files[0]).text
    answer = scene.ask(wanted.question, regions)
    assert not isinstance(answer, Choice)
    return answer.text


class Client:
    """One client, with a connection that it keeps."""

    def __init__(self, server: Running, scenes: dict[str, str], pictures: dict[str, str]) -> None:
        self._address = server.address
        self._connection = http.client.HTTPConnection(*server.address, timeout=120)
        self._scenes = scenes
        self._pictures = pictures

    def ask(self, wanted: Wanted) -> tuple[int, str]:
        """Status and text."""
        path, body = self._request(wanted)
        try:
            self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        except ConnectionError:  # it was idle for too long
            self._connection.close()
            self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        reply = self._connection.getresponse()
        data = reply.read()
        if reply.status != 200:
            return reply.status, data.decode()
        if wanted.kind == "openai":
            return 200, json.loads(data)["choices"][0]["message"]["content"]
        if wanted.kind == "stream":
            blocks = [block.split("\ndata: ") for block in data.decode().strip().split("\n\n")]
            answer = next(json.loads(body) for name, body in blocks if name == "event: answer")
            said = "".join(json.loads(body)["text"] for name, body in blocks if name == "event: text")
            return 200, answer["text"] if said == answer["text"] else f"{said} | {answer['text']}"
        return 200, json.loads(data)["answers"][0]["text"]

    def _request(self, wanted: Wanted) -> tuple[str, dict[str, Any]]:
        regions = [mask(wanted.picture, number) for number in wanted.masks]
        base = f"/v1/scenes/{self._scenes[wanted.picture]}"
        if wanted.kind == "openai":
            parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": self._pictures[wanted.picture]}}]
            parts += [{"type": "region", **region} for region in regions]
            parts += [{"type": "text", "text": wanted.question}] if wanted.question else []
            return "/v1/chat/completions", {"messages": [{"role": "user", "content": parts}]}
        if wanted.kind == "choose":
            return f"{base}/choose", {"question": wanted.question, "regions": regions, "choices": CHOICES}
        stream = {"stream": True} if wanted.kind == "stream" else {}
        if wanted.question is None:
            return f"{base}/describe", {"regions": regions, **stream}
        return f"{base}/ask", {"question": wanted.question, "regions": regions, **stream}


def in_threads(count: int, work: Callable[[int], None]) -> float:
    """Seconds that so many threads take."""
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


@app.command()
def load(
    model: Model,
    clients: int = 64,
    requests: int = 2000,
    rounds: int = 3,
    seed: int = 1,
    step: Annotated[float, typer.Option(help="Seconds a run of the decoder takes at least, not of the cores.")] = 0,
) -> None:
    """Print requests a second in the three ways, and what was wrong.

    step: the host beside an accelerator, for which it waits.
    """
    wanted = draw(requests, seed)
    with Gar.load(model, threads=1, batch=1, cache_bytes=0) as gar:
        scenes = {name: gar.open(EXAMPLES / f"{name}.png") for name in MASKS}
        known = {one: ask_directly(scenes, one) for one in dict.fromkeys(wanted)}
    rates: dict[str, list[float]] = {}
    tally, memory = Tally(), []
    with serving(bundle=model, queue=clients, step=step) as server:
        opened = {name: server.open(name) for name in MASKS}
        for _ in range(rounds):
            rates.setdefault("direct", []).append(requests / _direct(model, wanted, clients, known, tally, step))
            few = wanted[: requests // 4]
            rates.setdefault("one at a time", []).append(len(few) / _by_server(server, opened, few, 1, known, tally))
            seconds = _by_server(server, opened, wanted, clients, known, tally)
            rates.setdefault("server", []).append(requests / seconds)
            memory.append(server.memory())
    ratios = [one / other for one, other in zip(rates["server"], rates["direct"], strict=True)]
    alone = [one / other for one, other in zip(rates["server"], rates["one at a time"], strict=True)]
    print(
        json.dumps(
            {
                "requests_per_s": {name: [round(one, 1) for one in values] for name, values in rates.items()},
                "server_over_direct": [round(one, 2) for one in ratios],
                "server_over_one_at_a_time": [round(one, 2) for one in alone],
                "right": tally.right,
                "refused": tally.refused,
                "wrong": tally.wrong[:5],
                "server_memory_mib": [size >> 20 for size in memory],
            }
        )
    )


def _direct(
    model: Path, wanted: list[Wanted], callers: int, known: dict[Wanted, str], tally: Tally, step: float = 0
) -> float:
    """Seconds, of threads of this process that share a model."""
    with Gar.load(model, threads=1, queue=callers) as gar:
        if step:
            slow(gar, step)
        scenes = {name: gar.open(EXAMPLES / f"{name}.png") for name in MASKS}
        ask_directly(scenes, wanted[0])
        places = itertools.count()

        def work(index: int) -> None:
            while (place := next(places)) < len(wanted):
                _note(tally, known, wanted[place], 200, ask_directly(scenes, wanted[place]))

        return in_threads(callers, work)


def _by_server(
    server: Running, opened: dict[str, str], wanted: list[Wanted], clients: int, known: dict[Wanted, str], tally: Tally
) -> float:
    """Seconds, by clients in a process of their own."""
    settings = {"url": server.url, "scenes": opened, "clients": clients}
    asked = [[one.kind, one.picture, one.question, list(one.masks)] for one in wanted]
    done = subprocess.run(
        [sys.executable, __file__, "clients", json.dumps(settings)],
        input=json.dumps(asked), capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    for one, (status, text) in zip(wanted, told["answers"], strict=True):
        _note(tally, known, one, status, text)
    return float(told["seconds"])


def _note(tally: Tally, known: dict[Wanted, str], wanted: Wanted, status: int, text: str) -> None:
    with tally.lock:
        if status == 429:
            tally.refused += 1
        elif status == 200 and text == known[wanted]:
            tally.right += 1
        else:
            tally.wrong.append(f"{wanted}: {status} {text[:200]!r}, not {known[wanted]!r}")


@app.command()
def flat(model: Model, clients: int = 64, requests: int = 2000, rounds: int = 6, cache_mib: int = 32) -> None:
    """Print the server's resident MiB behind each round of requests, once its caches are full."""
    wanted = draw(requests, 1)
    with Gar.load(model, threads=1, batch=1, cache_bytes=0) as gar:
        scenes = {name: gar.open(EXAMPLES / f"{name}.png") for name in MASKS}
        known = {one: ask_directly(scenes, one) for one in dict.fromkeys(wanted)}
    tally, memory = Tally(), []
    with serving(bundle=model, queue=clients, cache_bytes=cache_mib << 20) as server:
        opened = {name: server.open(name) for name in MASKS}
        for _ in range(rounds):
            _by_server(server, opened, wanted, clients, known, tally)
            memory.append(round(server.memory() / (1 << 20), 1))
    print(json.dumps({"memory_mib": memory, "right": tally.right, "refused": tally.refused, "wrong": tally.wrong[:5]}))


@app.command("clients", hidden=True)
def clients_of(settings: str) -> None:
    """So many clients; requests from stdin, answers and seconds to stdout."""
    given = json.loads(settings)
    wanted = [Wanted(kind, picture, question, tuple(masks)) for kind, picture, question, masks in json.load(sys.stdin)]
    running = Running(None, given["url"])  # type: ignore[arg-type]
    pictures = {name: data_url(EXAMPLES / f"{name}.png") for name in MASKS}
    answers: list[tuple[int, str]] = [(0, "")] * len(wanted)
    places = itertools.count()

    def work(index: int) -> None:
        client = Client(running, given["scenes"], pictures)
        while (place := next(places)) < len(wanted):
            answers[place] = client.ask(wanted[place])

    seconds = in_threads(given["clients"], work)
    print(json.dumps({"seconds": seconds, "answers": answers}))


@app.command()
def share(model: Model, requests: int = 300) -> None:
    """Print milliseconds of the server's own, of whole answers and of pieces of streams."""
    with serving(bundle=model) as server:
        key = server.open()
        connection = http.client.HTTPConnection(*server.address)
        body = {"question": ONE[0], "regions": [mask("scene_1", 0)]}
        waits, own = [], []
        for _ in range(requests):
            begin = time.perf_counter()
            connection.request("POST", f"/v1/scenes/{key}/ask", json.dumps(body), {"Content-Type": "application/json"})
            told = json.loads(connection.getresponse().read())["answers"][0]
            waits.append((time.perf_counter() - begin) * 1e3)
            own.append(waits[-1] - told["timings_ms"]["total"])
        first = []
        for _ in range(requests // 10):
            asked = json.dumps({"regions": [mask("scene_1", 1)], "stream": True})
            begin = time.perf_counter()
            connection.request("POST", f"/v1/scenes/{key}/describe", asked, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            arrived = 0.0
            answer: dict[str, Any] = {}
            name = ""
            for line in reply:
                if line.startswith(b"event: "):
                    name = line[7:].strip().decode()
                    arrived = arrived or (time.perf_counter() - begin) * 1e3
                elif line.startswith(b"data: ") and name == "answer":
                    answer = json.loads(line[6:])
            first.append(arrived - answer["timings_ms"]["first_token"])
    print(
        json.dumps({"request_ms": _spread(waits), "own_ms": _spread(own), "first_byte_behind_token_ms": _spread(first)})
    )


@app.command()
def memory(model: Model) -> None:
    """Print MiB resident: of a process that has answered one question, and of a server that has."""
    code = (
        "import sys\nfrom gar_edge.runtime import Gar\n"
        "gar = Gar.load(sys.argv[1], threads=1)\nscene = gar.open(sys.argv[2])\n"
        "scene.describe(sys.argv[3])\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')][0])"
    )
    pictures = [str(EXAMPLES / "scene_1.png"), str(EXAMPLES / "scene_1_mask_0.png")]
    done = subprocess.run(
        [sys.executable, "-c", code, str(model), *pictures], capture_output=True, text=True, check=True
    )
    alone = int(done.stdout) >> 10
    with serving(bundle=model) as server:
        key = server.open()
        server.post(f"/v1/scenes/{key}/describe", {"regions": [mask("scene_1", 0)]})
        served = server.memory() >> 20
    print(json.dumps({"gar_mib": alone, "server_mib": served, "more_mib": served - alone, "cores": os.cpu_count()}))


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"median": round(statistics.median(values), 2), "p95": round(ordered[int(0.95 * len(ordered))], 2),
            "longest": round(ordered[-1], 2)}  # fmt: skip


if __name__ == "__main__":
    app()
