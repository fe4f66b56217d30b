"""The training run: three phases, checkpoints, a log of losses and of answers on scenes never seen before.

1. *text*: the decoder alone, without images, on painted regions with hints of their boxes: reading questions,
   looking up letters, comparing regions.
2. *align*: the encoder alone, towards the painted features.
3. *joint*: both on the answers, the alignment fading out; the learning rate falls to zero on a cosine.

Every batch is freshly drawn, so the hits in the log are hits on unseen scenes.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gar_edge.models.nano import recipe
from gar_edge.models.nano.network import Trainee
from gar_edge.models.nano.optimiser import optimisers
from gar_edge.models.nano.samples import Batch, Batches, Mix, Sampler

STATE = "state.pt"
LOG = "log.jsonl"


PHASES = ("text", "align", "joint")
LETTERS_FIRST = 300  # steps of looking up letters alone, at the beginning of text
TEXT_LIMIT = 240  # tokens of a sequence without an image
TEXT_UNTIL = 0.7
RARE_TEXT = 10  # a run that starts from another has one step of text in so many
BOX_WEIGHT = 4.0
WORDS_WEIGHT = 0.5  # of the words of cells and regions
AVERAGING = 0.995  # decay of the weights' running average


@dataclass(frozen=True)
class Plan:
    """A run. Steps per phase; rates at their peak; `batch` samples a step; `limit` tokens a sequence."""

    seed: int = 0
    text: int = 800
    align: int = 320
    joint: int = 2150
    batch: int = 20
    limit: int = 384
    muon_rate: float = 1e-2
    adam_rate: float = 2e-3
    warmup: int = 50
    several: float = 0.6
    save_minutes: float = 3.0
    log_steps: int = 25

    @property
    def steps(self) -> int:
        return self.start("joint") + self.joint

    def start(self, phase: str) -> int:
        """A phase's first step."""
        lengths = (self.text, self.align, self.joint)
        return sum(lengths[: PHASES.index(phase)])

    def phase(self, step: int) -> str:
        return [phase for phase in PHASES if self.start(phase) <= step][-1]

    def share(self, step: int, phase: str) -> float:
        """How much of a phase is done, 0…1."""
        return min(1.0, max(0.0, (step - self.start(phase)) / max(getattr(self, phase), 1)))

    def rate(self, step: int) -> float:
        """Factor of the learning rates: a warm-up in each phase, the cosine in the last."""
        into = step - self.start(self.phase(step))
        return min(1.0, (into + 1) / self.warmup) * 0.5 * (1 + math.cos(math.pi * self.share(step, "joint")))

    def align_weight(self, step: int) -> float:
        """Weight of the distance from painted features in the joint phase: gone after two thirds of it."""
        return max(0.0, 1 - 1.5 * self.share(step, "joint")) if self.align else 0.0

    def encoder_waits(self, step: int) -> bool:
        """Whether the encoder only aligns on, for the decoder to get used to it: in the first quarter of joint."""
        return self.align > 0 and self.phase(step) == "joint" and self.share(step, "joint") < 0.25

    def hint_share(self, step: int) -> float:
        """Share of samples with images whose regions come with hints of their boxes: none after a third of joint."""
        return max(0.0, 0.8 * (1 - 3 * self.share(step, "joint"))) if self.text else 0.0

    def mix(self, step: int) -> Mix:
        """What a step's batch holds. Text goes on during joint, every other step until `TEXT_UNTIL` of it."""
        phase = self.phase(step)
        if phase == "text" and step < LETTERS_FIRST:
            return Mix(self.batch, 0.0, TEXT_LIMIT, pixels=False, image=False, lookups=1.0)
        rare = 2 if self.text else RARE_TEXT
        if phase == "text" or (phase == "joint" and step % rare == 1 and self.share(step, "joint") < TEXT_UNTIL):
            return Mix(self.batch, self.several, TEXT_LIMIT, pixels=False, image=False, lookups=0.25)
        return Mix(self.batch, self.several, self.limit, pixels=True)


@dataclass
class Record:
    """One line of the log: means since the line before; `hits` per task: share of answers wholly right."""

    step: int
    phase: str
    minutes: float
    answer: float
    box: float
    align: float
    names: float
    hits: dict[str, float]


class Trainer:
    """Runs a plan in a folder; a second run in the same folder goes on from its last checkpoint."""

    def __init__(
        self,
        plan: Plan,
        model: Trainee,
        sampler: Sampler,
        folder: Path,
        device: torch.device,
        start: Path | None = None,
    ) -> None:
        """`start`: another run's folder whose averaged weights a new run begins with."""
        self.plan, self.model, self.sampler, self.folder, self.device = plan, model.to(device), sampler, folder, device
        self.optimisers = optimisers(model, plan.muon_rate, plan.adam_rate)
        self.rates = [group["lr"] for optimiser in self.optimisers for group in optimiser.param_groups]
        self.step, self.minutes = 0, 0.0
        self.average = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self.stopping = False
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / STATE).exists():
            self._resume()
        elif start is not None:
            self._start_from(start)

    def run(self, report: Callable[[Record], None]) -> bool:
        """Train to the plan's end; False where a signal stopped it before (the checkpoint is written)."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        batches = Batches(self.sampler, self.plan.seed, self.plan.mix)
        steps = range(self.step, self.plan.steps)
        loader = DataLoader(batches, batch_size=None, sampler=steps, num_workers=1, prefetch_factor=4)
        tally = _Tally()
        saved = clock = time.monotonic()
        for batch in loader:
            tally.add(*self._update(batch.to(self.device)))
            self.step += 1
            now = time.monotonic()
            self.minutes += min(now - clock, 60) / 60
            clock = now
            if self.step % self.plan.log_steps == 0:
                self._log(tally.record(self.step, self.plan.phase(self.step - 1), self.minutes), report)
                tally = _Tally()
            if self.stopping or now - saved > self.plan.save_minutes * 60:
                self._save()
                saved = now
            if self.stopping:
                return False
        self._save()
        return True

    def _update(self, batch: Batch) -> tuple[dict[str, float], Tensor | None, Batch]:
        phase, model = self.plan.phase(self.step), self.model
        parts: dict[str, Tensor] = {}
        hits = None
        text = not any(batch.tiles)
        features = _blurred(model.painter(batch)) if text else model.encode(batch)
        replayed = _blurred(self._painted(batch)) if text else model.replayed(features, batch)
        if phase == "align":
            parts["align"], parts["names"] = model.align_loss(features, replayed, batch)
            total = parts["align"] + 0.5 * parts["names"]
        else:
            hinted = torch.rand(len(batch.tiles)).to(self.device) < (1.0 if text else self.plan.hint_share(self.step))
            hints = model.painter.hints(batch) * hinted[batch.owner][:, None, None]
            waits = self.plan.encoder_waits(self.step)
            seen, told = (features.detach(), replayed.detach()) if waits else (features, replayed)
            parts["answer"], parts["box"], parts["names"], hits = model.losses(seen, told + hints, batch)
            total = parts["answer"] + BOX_WEIGHT * parts["box"] + 0.3 * parts["names"]
            weight = self.plan.align_weight(self.step)
            if phase == "joint" and not text:
                distance, words = model.align_loss(features, replayed, batch)
                parts["align"] = words
                total = total + weight * distance + WORDS_WEIGHT * words
        if text and phase == "joint":
            hits = None  # the log's hits are on images
            parts = {}
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        factor = self.plan.rate(self.step)
        groups = [group for optimiser in self.optimisers for group in optimiser.param_groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * factor
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self._average()
        return {name: float(part.detach()) for name, part in parts.items()}, hits, batch

    @torch.no_grad()
    def _average(self) -> None:
        """Follow the weights; where they jump about, their average is the better model."""
        decay = min(AVERAGING, (self.step + 1) / (self.step + 10))
        for name, parameter in self.model.named_parameters():
            self.average[name].lerp_(parameter, 1 - decay)

    def _painted(self, batch: Batch) -> Tensor:
        """Painted regions; they only learn until the encoder has been aligned with them."""
        painted = self.model.painter.regions(batch)
        return painted if self.plan.phase(self.step) == "text" else painted.detach()

    def _log(self, record: Record, report: Callable[[Record], None]) -> None:
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        report(record)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "minutes": self.minutes,
            "plan": asdict(self.plan),
        }
        temporary = self.folder / (STATE + ".new")
        torch.save(state, temporary)
        temporary.replace(self.folder / STATE)

    def _start_from(self, run: Path) -> None:
        """Another run's weights; helpers that it did not have stay fresh."""
        known = torch.load(run / STATE, map_location=self.device, weights_only=True)["average"]
        self.model.load_state_dict(known, strict=False)
        self.average = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}

    def _resume(self) -> None:
        state = torch.load(self.folder / STATE, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.average = state["average"]
        self.step, self.minutes = state["step"], state["minutes"]


def _blurred(painted: Tensor) -> Tensor:
    """Painted features with some noise, since no encoder is perfect."""
    return painted + torch.randn_like(painted) * 0.3


def trained(folder: Path) -> Trainee:
    """The model of a run's last checkpoint, its weights averaged."""
    model = Trainee(recipe.config())
    model.load_state_dict(torch.load(folder / STATE, map_location="cpu", weights_only=True)["average"])
    return model


class _Tally:
    """Sums losses and hits between two lines of the log."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = defaultdict(list)
        self.right: dict[str, int] = defaultdict(int)
        self.asked: dict[str, int] = defaultdict(int)

    def add(self, parts: dict[str, float], hits: Tensor | None, batch: Batch) -> None:
        for name, value in parts.items():
            self.parts[name].append(value)
        if hits is None:
            return
        wrong = set()
        samples, at = torch.nonzero(batch.weights > 0, as_tuple=True)
        segments = batch.segments[samples, at].tolist()
        leaves = list(zip(samples.tolist(), segments, strict=True))
        for leaf, hit in zip(leaves, hits.tolist(), strict=True):
            if not hit:
                wrong.add(leaf)
        for sample, segment in dict.fromkeys(leaves):
            task = batch.tasks[sample][segment]
            self.asked[task] += 1
            self.right[task] += (sample, segment) not in wrong

    def record(self, step: int, phase: str, minutes: float) -> Record:
        mean = {name: sum(values) / len(values) for name, values in self.parts.items()}
        hits = {task: round(self.right[task] / self.asked[task], 4) for task in sorted(self.asked)}
        loss = {name: round(mean.get(name, 0.0), 5) for name in ("answer", "box", "align", "names")}
        return Record(step, phase, round(minutes, 2), **loss, hits=hits)
