"""A bundle of 8-bit floats: what is in it, and what ONNX Runtime's processor makes of it, which is the reference."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fakes.gpu import FakeGpu
from helpers.shapes import SHAPES

from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.export.quantise import Quantising
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.standin import random_checkpoint_of
from gar_edge.models.weights import TOKEN_TABLE
from gar_edge.runtime import Gar, GarBackendError, Options
from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.engines.onnxruntime.processor import OnnxRuntimeBackend
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.model.start import start_sequence

E4M3 = onnx.TensorProto.FLOAT8E4M3FN


@pytest.fixture(scope="module", params=["tied", "untied"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return random_checkpoint_of(SHAPES[request.param], request.param)


@pytest.fixture(scope="module")
def folder(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Validated, with a compat decoder, every layer in E4M3."""
    quantising = Quantising(samples=2, keep_float="none")
    options = ExportOptions(Precision.FP8, quantising=quantising, compat=True, judged=False)
    exported = export_bundle(checkpoint, tmp_path_factory.mktemp("fp8") / "b", options, Silent())
    assert exported.report is not None
    assert [check.name for check in exported.report.checks if check.ok][-1] == "decoder_compat"
    return exported.folder


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ExportOptions(validate=False)
    return export_bundle(checkpoint, tmp_path_factory.mktemp("fp8") / "plain", options, Silent()).folder


def test_every_linear_is_e4m3_in_every_form(folder: Path, checkpoint: Checkpoint) -> None:
    vision, text = checkpoint.config.vision, checkpoint.config.text
    expected = {"encoder": 4 * vision.depth + 2, "decoder": 7 * text.layers + 1}
    for form in ("encoder", "encoder_cpu", "decoder", "decoder_cpu", "decoder_compat"):
        model = onnx.load(folder / f"{form}.onnx", load_external_data=False)
        weights = [one for one in model.graph.initializer if one.data_type == E4M3 and len(one.dims) == 2]
        assert len(weights) == expected[form.split("_")[0]], form
        kinds = {one.data_type for one in model.graph.initializer}
        assert not kinds & {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4}


def test_the_head_is_e4m3_and_the_table_int8(folder: Path, checkpoint: Checkpoint) -> None:
    """Of a tied model too: the same numbers, each rounded to a sixteenth, against rows of 127 steps."""
    rows = checkpoint.weights.tensor(TOKEN_TABLE).float().numpy()
    table = Gar.load(folder).pipeline.bundle.embed(np.arange(len(rows)))
    assert np.abs(table - rows).max() <= np.abs(rows).max() / 127
    if not checkpoint.tied:
        return
    model = onnx.load(folder / "decoder.onnx")
    tensors = {one.name: one for one in model.graph.initializer}
    head = onnx.numpy_helper.to_array(tensors["head_q"]).astype(np.float32)
    found = head * onnx.numpy_helper.to_array(tensors["head_scale"]).astype(np.float32)[:, None]
    floor = np.abs(rows).max(axis=1, keepdims=True) / 448 * 2.0**-9
    assert (np.abs(found - rows) <= np.maximum(np.abs(rows) / 15.9, floor)).all()


def cosine(found: np.ndarray, wanted: np.ndarray) -> float:
    a, b = found.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_features_are_nearly_the_float_ones_in_both_types(folder: Path, plain: Path) -> None:
    """The form for processors in float32, and the one for GPUs in float16, which ONNX Runtime computes here as well."""
    side = Gar.load(plain).manifest.preprocess.tile
    random = np.random.default_rng(3)
    # Squares of one colour, as pictures have: noise is nothing that ranges were chosen for.
    pixels = np.repeat(np.repeat(random.integers(0, 256, (2, 3, side // 7, side // 7), np.uint8), 7, 2), 7, 3)
    feed = {"pixels": pixels, "mask": random.random((2, 1, side, side)) > 0.5}
    found = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feed)[0]
        for path in (plain / "encoder.onnx", folder / "encoder_cpu.onnx", folder / "encoder.onnx")
    ]
    assert found[2].dtype == np.float16
    assert cosine(found[1], found[0]) > 0.99
    assert cosine(found[2], found[1]) > 0.998


def test_logits_are_nearly_the_float_ones(folder: Path, plain: Path) -> None:
    logits = []
    for path, decoder in ((plain, "standard"), (folder, "standard"), (folder, "compat")):
        gar = Gar.load(path, threads=1, decoder=decoder)
        graph, ids = gar.pipeline.decoder, np.arange(5, 45)
        embeds = gar.pipeline.backend.empty((len(ids), gar.manifest.dimensions.hidden), graph.dtype)
        embeds.write(np.asarray(gar.pipeline.bundle.embed(ids), graph.dtype))
        logits.append(start_sequence(graph, len(ids)).prefill(embeds).logits()[0])
    assert cosine(logits[1], logits[0]) > 0.95
    assert cosine(logits[2], logits[1]) > 0.99


def test_the_account_names_the_scheme(folder: Path) -> None:
    account = json.loads((folder / "quantization.json").read_text(encoding="utf-8"))
    assert (account["precision"], account["kept_float"]) == ("fp8", [])
    assert {site["scheme"] for site in account["sites"]} == {"fp8"}
    assert all(0 < site["threshold"] <= 1.01 * site["top"] for site in account["sites"])
    assert all(20 < site["snr_db"] < 45 for site in account["sites"])  # three bits: some 31 dB for each of two factors
    assert not list(folder.glob("*.cache"))  # int8's, for builders that would choose ranges themselves


@pytest.mark.usefixtures("fake_gpu")
def test_engines_are_refused_in_a_line_where_the_gpu_has_no_float8(folder: Path) -> None:
    with pytest.raises(GarBackendError, match=r"fp8 needs a GPU of compute capability 8\.9 .* 8\.7; export .*--int8"):
        Gar.load(folder, backend="tensorrt")


def test_engines_answer_as_the_same_graphs_do(folder: Path, fake_gpu: FakeGpu, picture: np.ndarray) -> None:
    """On the fake of an Ada: what TensorRT would run, in float16 and E4M3, beside the same in ONNX Runtime."""
    fake_gpu.cuda.capability = (8, 9)
    mask, options = picture[..., 0] > 128, Options(max_new_tokens=6)
    found = Gar.load(folder, backend="tensorrt").open(picture).describe(mask, options=options)
    bundle = Bundle.open(folder)
    same = Gar(Pipeline.of(bundle, OnnxRuntimeBackend(folder, bundle.manifest, threads=1)))
    assert found.tokens == same.open(picture).describe(mask, options=options).tokens


@pytest.mark.usefixtures("fake_gpu")
def test_an_orin_falls_back_to_the_processor(folder: Path, picture: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="fp8 needs a GPU"):
        gar = Gar.load(folder)
    assert gar.open(picture).describe(picture[..., 0] > 128, options=Options(max_new_tokens=3)).tokens


def test_the_command_takes_one_precision(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gar_edge.export.cli", "--size", "nano", "--int8", "--fp8", "-o", tmp_path / "b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--int8 and --fp8 exclude each other" in " ".join(done.stderr.replace("│", "").split())
