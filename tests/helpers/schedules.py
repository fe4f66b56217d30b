"""Random schedules of requests on gar-nano, each answer compared with the one that it gets alone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gar_edge.runtime import Answer, Gar, GarBusyError, Options, Scene

EXAMPLES = Path(__file__).parents[2] / "examples"
SCENES: Mapping[str, int] = {"scene_1": 5, "scene_2": 3}  # and how many masks each has
QUESTIONS = (None, "What colour is <Prompt{a}>?", "What shape is <Prompt{a}>?", "Is <Prompt{a}> left of <Prompt{b}>?",
             "Is <Prompt{a}> larger or smaller than <Prompt{b}>?")  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """What is asked: so many requests by so many threads, drawn from a seed."""

    requests: int
    threads: int
    seed: int
    batch: int = 4
    queue: int = 64


@dataclass
class Outcome:
    """whole: answers that ended by themselves, and were right. cut: those that were cancelled or timed out, whose
    beginning was. wrong: what was asked where an answer was not what it is alone.
    """

    whole: int = 0
    cut: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """One request. Two of equal fields have equal answers."""

    scene: str
    question: str | None
    masks: tuple[tuple[int, int], ...]  # region's number, mask's number
    options: Options

    @property
    def regions(self) -> dict[int, Path]:
        return {number: EXAMPLES / f"{self.scene}_mask_{mask}.png" for number, mask in self.masks}


class Oracle:
    """Answers of a model of its own, one request at a time, with nothing kept."""

    def __init__(self, bundle: Path) -> None:
        self._gar = Gar.load(bundle, cache_bytes=0, batch=1, threads=1)
        self._known: dict[Asked, Answer] = {}
        self._lock = threading.Lock()

    def answer(self, asked: Asked) -> Answer:
        with self._lock:
            key = replace(asked, options=replace(asked.options, cancel=None, seconds=None, speculate=0, live=False))
            if key not in self._known:
                scene = self._gar.open(EXAMPLES / f"{asked.scene}.png")
                self._known[key] = scene.stream(asked.question, asked.regions, options=key.options).finish()
            return self._known[key]


def run_schedule(bundle: Path, schedule: Schedule) -> Outcome:
    """Ask in threads, and compare; budgets are small, so that caches are evicted all the time."""
    oracle, outcome, lock = Oracle(bundle), Outcome(), threading.Lock()
    probe = Gar.load(bundle)
    budget = random.Random(schedule.seed).choice((0, 3, 30)) * probe.pipeline.decoder.planned_bytes(200)
    gar = Gar.load(bundle, cache_bytes=budget, batch=schedule.batch, queue=schedule.queue, threads=1)
    scenes = {name: gar.open(EXAMPLES / f"{name}.png") for name in SCENES}

    def work(index: int) -> None:
        draw = random.Random(f"{schedule.seed}/{index}")
        for _ in range(schedule.requests // schedule.threads):
            asked = _draw(draw)
            kept = scenes[asked.scene] if draw.random() < 0.6 else gar.open(EXAMPLES / f"{asked.scene}.png")
            try:
                answer = _ask(draw, kept, asked)
            except GarBusyError:
                with lock:
                    outcome.refused += 1
                continue
            _compare(asked, answer, oracle.answer(asked), outcome, lock)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(schedule.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gar.close()
    return outcome


def _draw(draw: random.Random) -> Asked:
    scene = draw.choice(list(SCENES))
    form = draw.choice(QUESTIONS)
    a, b = draw.sample(range(5), 2)
    one, other = draw.sample(range(SCENES[scene]), 2)
    masks = ((a, one), (b, other)) if form is not None and "{b}" in form else ((a, one),)
    options = Options(
        max_new_tokens=draw.choice((1, 3, 20, 60)),
        temperature=draw.choice((0.0, 0.0, 0.8)),
        seed=draw.randrange(3),
        stop=draw.choice(((), (), ("near", "left"))),
        speculate=draw.choice((0, 0, 4)),
        live=draw.random() < 0.1,
        seconds=draw.choice((None, None, None, 0.05)),
        cancel=threading.Event(),
    )
    return Asked(scene, None if form is None else form.format(a=a, b=b), masks, options)


def _ask(draw: random.Random, scene: Scene, asked: Asked) -> Answer:
    if asked.question is not None and draw.random() < 0.4:
        return scene.ask(asked.question, asked.regions, options=asked.options)
    stream = scene.stream(asked.question, asked.regions, options=asked.options)
    ending = draw.random()
    if ending < 0.15:
        for _, _piece in zip(range(draw.randrange(4)), stream, strict=False):
            pass
        stream.close()
    elif ending < 0.25 and asked.options.cancel is not None:
        time.sleep(draw.random() * 0.05)
        asked.options.cancel.set()
    return stream.finish()


def _compare(asked: Asked, found: Answer, alone: Answer, outcome: Outcome, lock: threading.Lock) -> None:
    cut = found.finish_reason in ("cancelled", "timeout")
    same = alone.tokens[: len(found.tokens)] == found.tokens and (
        alone.text.startswith(found.text)
        if cut
        else (found.text, found.tokens, found.finish_reason) == (alone.text, alone.tokens, alone.finish_reason)
    )
    with lock:
        if not same:
            outcome.wrong.append(f"{asked}: {found.text!r} and not {alone.text!r}")
        elif cut:
            outcome.cut += 1
        else:
            outcome.whole += 1
