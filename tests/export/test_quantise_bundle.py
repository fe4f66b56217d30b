"""Quantised bundles as they are written: their operators, bytes, answers and account; and what stops an export."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.shapes import SHAPES
from PIL import Image

from gar_edge.calibration.cache import read_cache
from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.export.quantise import Quantising
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.sizes import Preset
from gar_edge.models.standin import random_checkpoint_of
from gar_edge.runtime import Gar, Options
from gar_edge.runtime.errors import GarOptionError
from gar_edge.runtime.images.preprocess import cut_mask, cut_tiles
from gar_edge.runtime.model.start import start_sequence

INT8 = onnx.TensorProto.INT8
FUSED = {"MatMulIntegerToFloat", "QGemm", "MatMulNBits", "DynamicQuantizeMatMul"}


def draw_folder(folder: Path, pictures: int = 3) -> Path:
    """Gradients with some noise, each with a `NAME_mask.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(11)
    for index in range(pictures):
        height, width = 40 + 10 * index, 90 - 15 * index
        y, x = np.mgrid[0:height, 0:width]
        ramps = [x * 255 / width, (width - x) * 255 / width, y * 255 / height, (height - y) * 255 / height]
        smooth = np.stack([ramps[(index + channel) % 4] for channel in range(3)], axis=-1)
        image = np.clip(smooth + random.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[8:30, 10 : 30 + 5 * index] = 255
        Image.fromarray(image).save(folder / f"p{index}.png")
        Image.fromarray(mask).save(folder / f"p{index}_mask.png")
    return folder


@dataclass(frozen=True)
class Written:
    """A quantised bundle and the float32 one of the same checkpoint."""

    precision: Precision
    checkpoint: Checkpoint
    folder: Path
    plain: Path
    account: dict[str, Any]


CASES = [("tied", Precision.INT8), ("tied", Precision.INT4), ("untied", Precision.INT8), ("untied", Precision.INT4)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1].value}")
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    shape, precision = request.param
    folder = tmp_path_factory.mktemp("quantised")
    checkpoint = random_checkpoint_of(SHAPES[shape], shape)
    export_bundle(checkpoint, folder / "plain", ExportOptions(validate=False), Silent())
    options = ExportOptions(precision, quantising=Quantising(data=draw_folder(folder / "pictures"), samples=2))
    exported = export_bundle(checkpoint, folder / "b", options, Silent())
    account = json.loads((folder / "b" / "quantization.json").read_text())
    assert exported.account == account
    return Written(precision, checkpoint, folder / "b", folder / "plain", account)


def optimised(path: Path, folder: Path) -> Counter[str]:
    """Operators of a graph as ONNX Runtime runs it on a CPU."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath, load_external_data=False)
    return Counter(node.op_type for node in model.graph.node)


def test_no_quantised_product_runs_in_float(written: Written, tmp_path: Path) -> None:
    """All products of the encoder's and the decoder's linears are fused integer ones; only attention's stay."""
    depth = written.checkpoint.config.vision.depth
    kept = Counter(entry["graph"] for entry in written.account["kept_float"])
    counts = Counter(site["graph"] for site in written.account["sites"])
    for graph, attention in (("encoder", 2 * depth), ("decoder", 0)):
        found = optimised(written.folder / f"{graph}_cpu.onnx", tmp_path)
        plain = found["MatMul"] + found["FusedMatMul"] + found["Gemm"]
        linears = sum(found[name] for name in FUSED)
        if kept[graph] == 0:
            assert plain == attention
            assert found["DequantizeLinear"] == 0
        assert linears >= counts[graph] - kept[graph]
    if written.precision is Precision.INT4:
        assert found["MatMulNBits"] > 0


def test_both_forms_share_every_weight(written: Written) -> None:
    """The same bytes of the same file behind the same names; nothing lies twice or unused in a weights file."""
    for graph in ("encoder", "decoder"):
        places: dict[str, dict[str, tuple[str, int, int]]] = {}
        for form in (graph, f"{graph}_cpu"):
            model = onnx.load(str(written.folder / f"{form}.onnx"), load_external_data=False)
            places[form] = {}
            for tensor in model.graph.initializer:
                stored = {entry.key: entry.value for entry in tensor.external_data}
                if stored:
                    place = (stored["location"], int(stored.get("offset", 0)), int(stored["length"]))
                    places[form][tensor.name] = place
        first, second = places[graph], places[f"{graph}_cpu"]
        assert set(first.values()) == set(second.values())
        spans = sorted(set(first.values()))
        used = sum(length for _, _, length in spans)
        for (file, begin, length), (other, after, _) in pairwise(spans):
            assert file != other or begin + length <= after
        files = {file for file, _, _ in spans}
        on_disk = sum((written.folder / file).stat().st_size for file in files)
        assert used <= on_disk
        if graph == "encoder":
            assert on_disk <= used + 4096 * len(spans)  # padding


def test_weights_stay_within_127(written: Written) -> None:
    """ARM processors without dot products lose -128 * -128, twice in a row."""
    held = []
    for graph in ("encoder", "decoder"):
        model = onnx.load(str(written.folder / f"{graph}_cpu.onnx"))
        held += [onnx.numpy_helper.to_array(one) for one in model.graph.initializer if one.data_type == INT8]
    assert sum(array.ndim == 2 for array in held) >= 6  # the encoder's, and the head in int4 too
    assert min(array.min() for array in held) >= -127
    assert min(array.min() for array in held) == -127  # every column's largest is 127 or -127


def test_graphs_are_well_formed(written: Written) -> None:
    for path in sorted(written.folder.glob("*.onnx")):
        if not path.stem.startswith("roi_replay"):
            onnx.checker.check_model(str(path), full_check=path.stem == "encoder")


def test_bytes_are_the_formats(written: Written) -> None:
    """Encoder linears a byte a weight, decoder layers a byte or half of one; the token table once, a byte a number."""
    config = written.checkpoint.config
    text, vision = config.text, config.vision
    encoder = vision.depth * (4 * vision.dim**2 + 2 * vision.dim * vision.mlp)
    per_layer = text.hidden * text.head_dim * (2 * text.heads + 2 * text.kv_heads) + 3 * text.hidden * text.ffn
    table = text.vocab * text.hidden
    size = written.account["size"]
    tables = table if written.checkpoint.tied else 2 * table
    kept = [entry["site"] for entry in written.account["kept_float"]]
    if not kept:
        layer_bytes = per_layer * text.layers // (2 if written.precision is Precision.INT4 else 1)
        assert size["bytes_per_token"]["now"] == pytest.approx(layer_bytes + table, rel=0.35)
    assert size["bytes_per_token"]["float16"] == 2 * (per_layer * text.layers + table)
    weights = sum(path.stat().st_size for path in written.folder.glob("*.data"))
    weights += sum(path.stat().st_size for path in written.folder.glob("*.bin"))
    assert encoder + tables < weights
    on_disk = sum(path.stat().st_size for path in written.folder.iterdir() if path.name != "gar.json")
    assert size["bytes"] <= on_disk


def cosine(found: np.ndarray, wanted: np.ndarray) -> float:
    a, b = found.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_features_and_logits_are_nearly_the_float_ones(written: Written, picture: np.ndarray) -> None:
    """On another picture than those it was calibrated on, and after a prompt of words alone."""
    mask = np.zeros(picture.shape[:2], bool)
    mask[20:60, 30:80] = True
    features, logits = [], []
    for folder in (written.folder, written.plain):
        gar = Gar.load(folder, threads=1)
        spec = gar.manifest.preprocess
        tiles = cut_tiles(picture, spec)
        regions = cut_mask({0: mask}, tiles.grid, spec, len(gar.manifest.prompt.regions))
        features.append(gar.pipeline.vision.encode(tiles.pixels, regions).read())
        ids = np.arange(5, 45)
        embeds = gar.pipeline.backend.empty((len(ids), gar.manifest.dimensions.hidden), gar.pipeline.decoder.dtype)
        embeds.write(np.array(gar.pipeline.bundle.embed(ids), gar.pipeline.decoder.dtype))
        logits.append(start_sequence(gar.pipeline.decoder, len(ids)).prefill(embeds).logits()[0])
        assert gar.open(picture).describe(mask, options=Options(max_new_tokens=3)).tokens
    assert cosine(*features) > 0.995
    assert cosine(*logits) > (0.98 if written.precision is Precision.INT8 else 0.95)


def test_the_account_says_what_was_done(written: Written) -> None:
    account = written.account
    assert account["precision"] == written.precision.value
    assert account["data"]["used"] == 2
    assert account["data"]["held_out"] == 1
    assert not account["data"]["builtin"]
    sites = {(site["graph"], site["site"]) for site in account["sites"]}
    assert len(sites) == len(account["sites"])
    float_sites = {(site["graph"], site["site"]) for site in account["sites"] if site["scheme"] == "float"}
    assert float_sites == {(entry["graph"], entry["site"]) for entry in account["kept_float"]}
    schemes = {site["scheme"] for site in account["sites"] if site["group"] != "head" and site["graph"] == "decoder"}
    assert written.precision.value in schemes
    assert {site["scheme"] for site in account["sites"] if site["graph"] == "encoder"} <= {"int8", "float"}
    graphs = account["graphs"]
    assert graphs["encoder"]["cosine"] >= account["budget"]["encoder_cosine"] or not account["budget"]["held"]
    assert 0 <= graphs["decoder"]["next_token_agreement"] <= 1


def test_caches_name_tensors_of_the_float_graphs(written: Written) -> None:
    for graph in ("encoder", "decoder"):
        model = onnx.load(str(written.plain / f"{graph}.onnx"), load_external_data=False)
        products = {node.input[0] for node in model.graph.node if node.op_type in ("MatMul", "Gemm")}
        scales = read_cache(written.folder / f"{graph}.calibration.cache", products)
        assert len(scales) == len([site for site in written.account["sites"] if site["graph"] == graph])
        assert all(scale > 0 for scale in scales.values())


def tiny(preset: Preset = SHAPES["tied"]) -> Checkpoint:
    return random_checkpoint_of(preset, "tiny")


def export(folder: Path, data: Path, **chosen: Any) -> dict[str, Any]:
    options = ExportOptions(Precision.INT8, validate=False, quantising=Quantising(data=data, **chosen))
    account = export_bundle(tiny(), folder, options, Silent()).account
    assert account is not None
    return dict(account)


def test_chosen_layers_stay_float(tmp_path: Path) -> None:
    data = draw_folder(tmp_path / "pictures")
    names = ("blocks.1.fc1", "layers.0.down_proj")
    account = export(tmp_path / "b", data, samples=2, keep_float=names)
    assert {entry["site"]: entry["why"] for entry in account["kept_float"]} == dict.fromkeys(names, "asked for")
    assert optimised(tmp_path / "b" / "decoder_cpu.onnx", tmp_path)["MatMul"] == 1
    assert export(tmp_path / "all", data, samples=2, keep_float="none")["kept_float"] == []
    with pytest.raises(GarOptionError, match=r"no layer is named layers\.9\.down_proj"):
        export(tmp_path / "no", data, samples=2, keep_float=("layers.9.down_proj", names[0]))
    assert not (tmp_path / "no").exists()


def test_an_unreadable_picture_among_many_is_named(tmp_path: Path) -> None:
    data = draw_folder(tmp_path / "pictures", 4)
    (data / "p1.png").write_bytes(b"not a picture")
    data_account = export(tmp_path / "b", data, samples=8)["data"]
    assert (data_account["asked"], data_account["used"], data_account["held_out"]) == (8, 2, 1)
    (note,) = data_account["skipped"]
    assert note.startswith("p1")


def command(folder: Path, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "gar_edge.export.cli", "--size", "nano", "--random-weights", "--int8",
            "-o", str(folder), *map(str, arguments)]  # fmt: skip


@pytest.mark.parametrize("case", ["missing", "empty", "maskless", "file"])
def test_data_without_regions_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    data = tmp_path / "pictures"
    if case == "file":
        data.write_text("no folder")
    elif case != "missing":
        data.mkdir()
    if case == "maskless":
        Image.new("RGB", (30, 20)).save(data / "p.png")
    done = subprocess.run(command(tmp_path / "b", "--calib-data", data), capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert str(data) in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("option", [["--calib-samples", "3"], ["--keep-float", "none"], ["--report", "r.html"]])
def test_calibration_options_need_a_quantised_precision(tmp_path: Path, option: list[str]) -> None:
    arguments = [word for word in command(tmp_path / "b", *option) if word != "--int8"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "only with --int8, --int4 or --fp8" in " ".join(done.stderr.split())


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(command(tmp_path / "b"), stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not any(tmp_path.iterdir()):
            time.sleep(0.05)  # until it has begun to write
        time.sleep(1)
        os.kill(process.pid, signal.SIGINT)
        process.communicate()
    assert process.returncode != 0
    assert not list(tmp_path.iterdir())


def test_the_command_reports(tmp_path: Path) -> None:
    """As typed by a user, on the built-in photographs; the table, the JSON and the page tell the same."""
    page = tmp_path / "loss.html"
    arguments = command(tmp_path / "b", "--calib-samples", "2", "--report", page, "--json")
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout)["quantization"]
    assert account == json.loads((tmp_path / "b" / "quantization.json").read_text())
    assert "photographs that come with scikit-image" in account["data"]["description"]
    assert account["data"]["builtin"]
    assert "photographs that come with scikit-image" in page.read_text()
