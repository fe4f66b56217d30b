"""What the routes share: pictures and questions in, answers out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.scene import Scene
from gar_edge.runtime.serve.admission import Admission
from gar_edge.runtime.serve.answers import Desk, Done, Making, Said
from gar_edge.runtime.serve.api_errors import ApiError, api_error_of
from gar_edge.runtime.serve.events import EventStream, event, while_there
from gar_edge.runtime.serve.limits import Limits
from gar_edge.runtime.serve.log import RequestLog
from gar_edge.runtime.serve.metrics import Metrics
from gar_edge.runtime.serve.patience import Patience, Readers
from gar_edge.runtime.serve.questions import Prepared, Wish, prepare
from gar_edge.runtime.serve.scenes import SceneStore
from gar_edge.runtime.serve.visit import Visit
from gar_edge.runtime.serve.warned import hearing

T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """A model and everything around it."""

    gar: Gar
    limits: Limits
    admission: Admission
    scenes: SceneStore
    desk: Desk
    metrics: Metrics
    log: RequestLog
    readers: Readers

    async def work(self, request: Request, function: Callable[[Patience], T]) -> T:
        """Run what takes its time in a thread; it is told when nobody waits for it. Warnings reach the request."""
        patience = Patience(self.limits.seconds)
        with self.readers.told(patience):
            limiter = self.readers.of(visit_of(request).owner)
            work = anyio.to_thread.run_sync(partial(function, patience), limiter=limiter)
            return await while_there(request.receive, work, left=patience.end)

    def cut_off(self) -> None:
        """End what is in the making as it is."""
        self.readers.end()
        self.desk.cut_off()

    async def prepared(
        self, request: Request, scene: Scene, wishes: Sequence[Wish], options: Options
    ) -> tuple[Prepared, list[str]]:
        """Requests that can be submitted, and the warnings on the way; errors as of `prepare`."""
        visit = visit_of(request)
        if options.live and not self.limits.live:
            raise ApiError(403, "no question may go before others here (live); --allow-live lets them", param="live")
        if not wishes:
            raise GarMaskError("no region is given; mark at least one")
        if len(wishes) > self.limits.regions:
            raise ApiError(400, f"{len(wishes)} questions in one request, over {self.limits.regions}; ask in parts")
        if visit.ticket is not None:
            self.admission.grow(visit.ticket, len(wishes))
        with hearing() as heard:
            described = self.gar.manifest.prompt.default_region
            work = partial(prepare, scene, wishes, options, self.limits, described=described)
            prepared = await self.work(request, work)
        if self.log.texts:
            visit.told["questions"] = [wish.turns[-1].question if wish.turns else wish.question for wish in wishes]
        return prepared, heard

    async def answered(
        self, request: Request, scene: Scene, wishes: Sequence[Wish], options: Options, *, stream: bool
    ) -> Response:
        """The response of our own API: all answers, or events as they come."""
        prepared, heard = await self.prepared(request, scene, wishes, options)
        making = self.desk.submit(prepared.asked, streamed=stream)
        if stream:
            events = self._events(visit_of(request), prepared, making, heard)
            return EventStream(events, close=making.close)
        answers = await self.finished(request, making)
        told = [prepared.to_json(index, answer) for index, answer in enumerate(answers)]
        return JSONResponse({"answers": told, "warnings": heard})

    async def finished(self, request: Request, making: Making) -> list[Answer]:
        """All answers, in the questions' order; the first failure is raised."""

        async def collected() -> dict[int, Answer]:
            found: dict[int, Answer] = {}
            async for one in making.events():
                if isinstance(one, Done):
                    found[one.index] = self.noted(visit_of(request), one)
            return found

        try:
            found = await while_there(request.receive, collected())
        finally:
            making.close()
        return [found[index] for index in sorted(found)]

    def noted(self, visit: Visit, done: Done) -> Answer:
        """An answer that is there, counted and told to the log; raises what it failed with."""
        if done.answer is None:
            assert done.failure is not None  # it is one of both
            raise done.failure
        answer, told = done.answer, visit.told
        self.metrics.answer(answer)
        told["answers"] = told.get("answers", 0) + 1
        told["tokens"] = told.get("tokens", 0) + len(answer.tokens)
        told["first_token"] = min(told.get("first_token", float("inf")), round(answer.timings_ms.first_token, 3))
        if self.log.texts:
            told.setdefault("texts", []).append(answer.text)
        return answer

    async def _events(
        self, visit: Visit, prepared: Prepared, making: Making, heard: Sequence[str]
    ) -> AsyncIterator[bytes]:
        for text in heard:
            yield event("warning", {"text": text})
        async for one in making.events():
            if isinstance(one, Said):
                yield event("text", {"index": one.index, "text": one.text})
                continue
            try:
                answer = self.noted(visit, one)
            except Exception as error:
                fault = api_error_of(error)
                if fault.status >= 500:
                    self.log.failed(visit.id, error)
                yield event("error", {"index": one.index, **fault.to_json()})
            else:
                yield event("answer", prepared.to_json(one.index, answer))
        yield event("end", {})


def visit_of(request: Request) -> Visit:
    """What the guard knows of this request."""
    visit = request.scope["state"]["visit"]
    assert isinstance(visit, Visit)
    return visit
