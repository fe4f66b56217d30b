"""The quantised export: calibrate, write, measure what was written, and keep layers in float until the budget holds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gar_edge.calibration import report
from gar_edge.calibration.calibrate import Calibrated, CalibrationOptions, calibrate, kept_float, worst_sites
from gar_edge.calibration.choices import AUTO, NONE, Calibrator
from gar_edge.calibration.evaluate import Budget, Loss, measure
from gar_edge.calibration.plan import Plan, Scheme
from gar_edge.calibration.prepare import Preparation
from gar_edge.calibration.samples import drawn_scenes, folder, photographs
from gar_edge.export import describe
from gar_edge.export.forms import Forms, quantise
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import STEPS, Progress
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.weights import expected_shapes
from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.bundle.manifest import FileEntry, GraphForm, Manifest
from gar_edge.runtime.engines.onnxruntime.processor import OnnxRuntimeBackend
from gar_edge.runtime.errors import GarOptionError
from gar_edge.runtime.files.digests import sha256
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.generate.prompt import PromptBuilder

BUDGETS = {
    Precision.INT8: Budget(encoder_cosine=0.998, kl=0.02),
    Precision.INT4: Budget(encoder_cosine=0.998, kl=0.1),
    Precision.FP8: Budget(encoder_cosine=0.998, kl=0.02),
}
CALIBRATION_TILES = 4  # beside the thumbnail: more tiles of one picture tell little more, and cost minutes
PHOTOGRAPHS, SCENES, FROM_FOLDER = 8, 256, 16  # default numbers of samples
SCENE_SEED = 20_000  # far from the seeds that evaluations start from
HELD_OUT = 4  # one more sample for so many measures and does not calibrate
ROUNDS = 4  # of keeping more layers in float
ROUND_SHARE = 0.06  # of a graph's sites, kept in float in one round
HOPELESS_DB = 10.0  # a site with less signal over noise stays float from the start


@dataclass(frozen=True)
class Quantising:
    """What the user chose. data None: the built-in set, drawn `scenes` or photographs.

    samples None: the set's default number. keep_float: `AUTO`, `NONE`, or names of sites.
    """

    scenes: bool = False
    data: Path | None = None
    samples: int | None = None
    calibrator: Calibrator = Calibrator.MSE
    keep_float: str | tuple[str, ...] = AUTO


@dataclass(frozen=True)
class Quantised:
    """A written bundle's manifest and the account of what quantisation cost; loss None where it was not measured."""

    manifest: Manifest
    account: Mapping[str, Any]
    loss: Loss | None


def calibration_options(checkpoint: Checkpoint, precision: Precision, chosen: Quantising) -> CalibrationOptions:
    """The samples and what is done with them; `GarCalibrationError` where there are none."""
    prompts = len(checkpoint.config.replay_tokens)
    default = FROM_FOLDER if chosen.data is not None else SCENES if chosen.scenes else PHOTOGRAPHS
    count = default if chosen.samples is None else chosen.samples
    held_out = -(-count // HELD_OUT)
    if chosen.data is not None:
        samples = folder(chosen.data, count + held_out, prompts)
    elif chosen.scenes:
        samples = drawn_scenes(count + held_out, SCENE_SEED)
    else:
        samples = photographs(count + held_out, prompts)
    return CalibrationOptions(samples, count, held_out, Scheme(precision.value), chosen.calibrator)


def write_quantised(
    checkpoint: Checkpoint,
    folder: Path,
    captured: Mapping[str, Forms],
    precision: Precision,
    options: CalibrationOptions,
    keep_float: str | tuple[str, ...],
    max_tiles: int | None,
    measured: bool,
    write: Callable[[Mapping[str, Forms]], Manifest],
    progress: Progress,
) -> Quantised:
    """Calibrate, and write the bundle with `write` until its loss is within the budget.

    options: from `calibration_options`; keep_float: as in `Quantising`. measured False: trust the plan, as where the
    bundle would not fit into memory beside what measures it.
    """

    def begin(what: str, steps: int) -> Callable[[], None]:
        progress.begin(what, steps, STEPS)
        return lambda: progress.advance(1)

    calibrated = calibrate(checkpoint, _preparation(checkpoint, max_tiles), options, begin)
    plans, reasons = _first_plans(calibrated, keep_float)
    budget = BUDGETS[precision]
    for rounds_left in range(ROUNDS, -1, -1):
        copies = {name: forms.copy() for name, forms in captured.items()}
        manifest = write(quantise(copies, checkpoint, plans))
        if not measured:
            loss = None
            break
        progress.begin("Measuring what quantisation cost")
        view = manifest.for_engine(GraphForm.CPU)
        loss = measure(Pipeline.of(Bundle(folder, view), OnnxRuntimeBackend(folder, view)), calibrated.reference)
        if loss.within(budget) or keep_float != AUTO or not rounds_left:
            break
        graph = "encoder" if loss.encoder.cosine < budget.encoder_cosine else "decoder"
        worst = worst_sites(plans[graph], ROUND_SHARE)
        reasons |= dict.fromkeys(worst, "among the noisiest, and the budget was not held")
        plans[graph] = kept_float(plans[graph], worst)

    models = {name: forms.main.model for name, forms in captured.items()}
    # E4M3 has no such cache: its ranges are in the graphs alone.
    caches = [] if precision is Precision.FP8 else report.write_caches(folder, models, calibrated, options)
    size = _size(checkpoint, captured, manifest, plans["decoder"])
    account = report.to_json(manifest.name, calibrated, options, plans, reasons, loss, budget, size)
    path = folder / report.FILE
    path.write_text(json.dumps(account, indent=1) + "\n", encoding="utf-8")
    added = {file.name: FileEntry(file.stat().st_size, sha256(file)) for file in (path, *caches)}
    return Quantised(replace(manifest, files=dict(sorted({**manifest.files, **added}.items()))), account, loss)


def _preparation(checkpoint: Checkpoint, max_tiles: int | None) -> Preparation:
    prompt = describe.describe_prompt(checkpoint)
    spec = describe.describe_pixels(checkpoint, max_tiles)
    prompts = PromptBuilder(
        prompt,
        checkpoint.config.tile_tokens,
        Tokenizer.from_str(checkpoint.tokenizer_json),
        checkpoint.chat_template,
    )
    most = min(spec.max_tiles, CALIBRATION_TILES)
    return Preparation(spec, prompts, prompt.replay_tokens, checkpoint.config.text.context, most)


def _first_plans(calibrated: Calibrated, keep_float: str | tuple[str, ...]) -> tuple[dict[str, Plan], dict[str, str]]:
    """The plans with the sites that are float from the start, and why."""
    plans = dict(calibrated.plans)
    reasons: dict[str, str] = {}
    if not isinstance(keep_float, str):
        _check_names(plans, keep_float)
    for graph, plan in plans.items():
        if keep_float == NONE:
            names = []
        elif keep_float == AUTO:
            names = [name for name, site in plan.sites.items() if site.snr_db < HOPELESS_DB]
            reasons |= dict.fromkeys(names, f"less than {HOPELESS_DB:.0f} dB of signal over noise")
        else:
            names = [name for name in keep_float if name in plan.sites]
        plans[graph] = kept_float(plan, names)
    return plans, reasons


def _check_names(plans: Mapping[str, Plan], names: Sequence[str]) -> None:
    known = [name for plan in plans.values() for name in plan.sites]
    if unknown := [name for name in names if name not in known]:
        raise GarOptionError(
            f"--keep-float: no layer is named {', '.join(unknown)}; quantization.json of an earlier export lists them "
            f"({known[0]}, …, {known[-1]})"
        )


def _size(checkpoint: Checkpoint, captured: Mapping[str, Forms], manifest: Manifest, decoder: Plan) -> dict[str, Any]:
    shapes = expected_shapes(checkpoint.config, checkpoint.tied).values()
    return {
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "float16_bytes": 2 * sum(math.prod(shape) for shape in shapes),
        "bytes_per_token": report.decode_bytes(decoder, captured["decoder"].main.model),
    }
