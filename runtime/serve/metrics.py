"""What Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.answer import Answer

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Metrics:
    """Counters of one server; no state of the process."""

    def __init__(self, gar: Gar, *, scenes: Callable[[], tuple[int, int]]) -> None:
        """scenes: how many are open, and their bytes."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Gauges(gar, scenes))
        self._requests = Counter(
            "gar_requests", "Requests, by route and status.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "gar_request_seconds", "Time of a request.", ["route"], buckets=SECONDS, registry=registry
        )
        self._answers = Counter("gar_answers", "Answers, by how they ended.", ["finish_reason"], registry=registry)
        self._first = Histogram(
            "gar_first_token_seconds", "From a question to its first token.", buckets=SECONDS, registry=registry
        )
        self._rate = Histogram(
            "gar_tokens_per_second", "Of an answer, behind its first token.", buckets=RATES, registry=registry
        )
        self._tokens = Counter("gar_tokens", "Tokens.", ["kind"], registry=registry)
        self._tiles = Counter("gar_tiles", "Tiles of pictures.", ["kind"], registry=registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request is over."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answer(self, answer: Answer) -> None:
        """An answer is there."""
        times, reuse = answer.timings_ms, answer.reuse
        self._answers.labels(answer.finish_reason).inc()
        if times.first_token:
            self._first.observe(times.first_token / 1e3)
        if times.decode > 0 and len(answer.tokens) > 1:
            self._rate.observe((len(answer.tokens) - 1) / (times.decode / 1e3))
        for kind, count in (
            ("generated", len(answer.tokens)),
            ("prefilled", reuse.tokens_prefilled),
            ("reused", reuse.tokens_reused),
        ):
            self._tokens.labels(kind).inc(count)
        self._tiles.labels("encoded").inc(reuse.tiles_encoded)
        self._tiles.labels("reused").inc(reuse.tiles_reused)

    def page(self) -> bytes:
        """All of it, in Prometheus' text form."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    """What is looked up when it is asked for."""

    def __init__(self, gar: Gar, scenes: Callable[[], tuple[int, int]]) -> None:
        self._gar = gar
        self._scenes = scenes

    def collect(self) -> Iterable[Metric]:
        waiting, making = self._gar.scheduler.counts()
        scenes, size = self._scenes()
        yield GaugeMetricFamily("gar_waiting", "Questions that wait for a place.", waiting)
        yield GaugeMetricFamily("gar_in_the_making", "Answers in the making.", making)
        yield GaugeMetricFamily(
            "gar_kept_bytes", "Features and KV caches kept for later.", self._gar.scheduler.kept.bytes
        )
        yield GaugeMetricFamily("gar_scenes", "Pictures kept open.", scenes)
        yield GaugeMetricFamily("gar_scene_bytes", "Bytes of pictures kept open.", size)
