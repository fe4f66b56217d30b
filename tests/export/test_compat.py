"""The compat decoder's file, and its answers beside the standard decoder's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from helpers.shapes import SHAPES

from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Captured, OpenGraph, Precision
from gar_edge.export.progress import Silent
from gar_edge.export.quantise import Quantising
from gar_edge.models.checkpoint import Checkpoint, open_checkpoint, shipped_checkpoint
from gar_edge.models.llama import Decoder, causal_mask
from gar_edge.models.sizes import Size
from gar_edge.models.standin import random_checkpoint_of
from gar_edge.models.weights import build_module, decoder_recipes, load_parameters
from gar_edge.runtime import Answer, Gar, Options
from gar_edge.runtime.errors import GarBackendError, GarBundleError, GarExportError, GarValidationError
from gar_edge.runtime.model.start import start_sequence

FILE = "decoder_compat.onnx"
NEWER = {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter", "Swish"}  # than opset 20
EXAMPLES = Path(__file__).parents[2] / "examples"
OPTIONS = Options(max_new_tokens=10)


def tiny() -> Checkpoint:
    return random_checkpoint_of(SHAPES["tied"], "tiny")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in float16."""
    options = ExportOptions(Precision.FP16, validate=False, compat=True)
    return export_bundle(tiny(), tmp_path_factory.mktemp("compat") / "half", options, Silent()).folder


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in int8, validated."""
    folder = tmp_path_factory.mktemp("compat") / "int8"
    exported = export_bundle(
        tiny(), folder, ExportOptions(Precision.INT8, compat=True, quantising=Quantising(samples=2)), Silent()
    )
    assert exported.report is not None
    assert [check.name for check in exported.report.checks if check.ok][-1] == "decoder_compat"
    return exported.folder


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gar-nano in float32, validated."""
    checkpoint = open_checkpoint(shipped_checkpoint(Size.NANO), name="gar-nano")
    folder = tmp_path_factory.mktemp("compat") / "nano"
    exported = export_bundle(checkpoint, folder, ExportOptions(compat=True), Silent())
    assert exported.report is not None
    assert [check.name for check in exported.report.checks if check.ok][-1] == "decoder_compat"
    return exported.folder


# The file


def assert_old_operators_only(path: Path) -> None:
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path), load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert model.ir_version <= 9
    assert not model.functions
    for node in model.graph.node:
        assert node.domain == ""
        assert node.op_type not in NEWER
        assert onnx.defs.get_schema(node.op_type, 20).since_version <= 20
        assert not any(attribute.HasField("g") for attribute in node.attribute)


def places(path: Path) -> dict[str, tuple[str, int, int]]:
    """File, offset and length of every tensor of a graph that lies outside of it."""
    tensors = [value.const_value for value in ir.load(path).graph.initializers.values()]
    return {
        str(tensor.name): (str(tensor.location), int(tensor.offset or 0), int(tensor.length or 0))
        for tensor in tensors
        if isinstance(tensor, ir.ExternalTensor)
    }


def test_nothing_newer_than_opset_20(compat_bundle: Path, half: Path, quantised: Path) -> None:
    for folder in (compat_bundle, half, quantised):
        assert_old_operators_only(folder / FILE)


def test_every_weight_is_the_standard_decoders(compat_bundle: Path, half: Path, quantised: Path) -> None:
    for folder in (compat_bundle, half, quantised):
        assert places(folder / FILE) == places(folder / "decoder.onnx") != {}
        assert (folder / FILE).stat().st_size < 100_000


def test_the_manifest_pairs_past_and_present(compat_bundle: Path, checkpoint: Checkpoint) -> None:
    manifest = Gar.load(compat_bundle).manifest
    graph = manifest.for_engine("compat").graphs["decoder"]
    assert graph.files[0] == FILE
    assert graph.files[1:] == manifest.graphs["decoder"].files[1:]
    kinds = [f"{kind}_{layer}" for layer in range(checkpoint.config.text.layers) for kind in ("key", "value")]
    assert graph.appends == {f"present_{kind}": f"past_{kind}" for kind in kinds}
    assert graph.aliases == {}
    assert manifest.graphs["decoder"].appends == {}


def test_int8_nodes_are_signed_with_float16_scales(quantised: Path) -> None:
    graph = ir.load(quantised / FILE).graph
    nodes = [node for node in graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    standard = [n for n in ir.load(quantised / "decoder.onnx").graph if n.op_type.endswith("quantizeLinear")]
    assert len([node for node in nodes if node.op_type == "DequantizeLinear"]) >= len(standard) > 0
    for node in nodes:
        assert node.inputs[1].dtype is ir.DataType.FLOAT16
        integers = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
        assert integers.dtype is ir.DataType.INT8


# Its arithmetic


def feed(gar: Gar, embeds: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    dims = gar.manifest.dimensions
    empty = np.zeros((1, 0, dims.kv_heads, dims.head_dim), gar.pipeline.decoder.dtype)
    return {
        "inputs_embeds": embeds[None].astype(gar.pipeline.decoder.dtype),
        "position": np.zeros(1, np.int64),
        "attention_mask": mask[None, None],
        "select": np.array([len(embeds) - 1]),
        **dict.fromkeys(gar.pipeline.decoder.ports.appends.values(), empty),
    }


def test_float16_norms_do_not_overflow(half: Path) -> None:
    """Embeddings of thousands: their squares are beyond float16, which therefore must not hold them."""
    gar, checkpoint = Gar.load(half, decoder="compat"), tiny()
    text = checkpoint.config.text
    embeds = (np.random.default_rng(5).standard_normal((12, text.hidden)) * 3000).astype(np.float16)
    session = onnxruntime.InferenceSession(half / FILE)
    (found,) = session.run(["logits"], feed(gar, embeds, np.tri(12, dtype=bool)))

    module = build_module(Decoder, text, torch.float32)
    load_parameters(module, decoder_recipes(checkpoint.config, checkpoint.tied), checkpoint.weights)
    caches = [torch.zeros(1, text.kv_heads, 12, text.head_dim) for _ in range(2 * text.layers)]
    start = torch.zeros(1, dtype=torch.int64)
    with torch.inference_mode():
        mask, last = causal_mask(start, 12, 12), torch.tensor([11])
        logits, *_ = module(torch.from_numpy(embeds)[None].float(), start, mask, last, caches)
    expected = logits.numpy()
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-2


def test_a_query_that_may_see_nothing_is_a_number(compat_bundle: Path, half: Path) -> None:
    """Padding: its row is meaningless, but must not poison the others with NaN."""
    for folder in (compat_bundle, half):
        gar = Gar.load(folder, decoder="compat")
        embeds = np.random.default_rng(6).standard_normal((5, gar.manifest.dimensions.hidden)) * 0.5
        mask = np.tri(5, dtype=bool)
        mask[0] = False
        outputs = onnxruntime.InferenceSession(folder / FILE).run(None, feed(gar, embeds, mask))
        assert all(np.isfinite(output).all() for output in outputs)


def test_int8_is_near_float(quantised: Path, tiny_bundle: Path) -> None:
    """After a prompt of words; tiny_bundle holds the same weights in float32."""
    logits = []
    for gar in (Gar.load(quantised, decoder="compat"), Gar.load(tiny_bundle)):
        embeds = np.asarray(gar.pipeline.bundle.embed(np.arange(5, 45)), gar.pipeline.decoder.dtype)
        buffer = gar.pipeline.backend.empty(embeds.shape, gar.pipeline.decoder.dtype)
        buffer.write(embeds)
        logits.append(start_sequence(gar.pipeline.decoder, len(embeds)).prefill(buffer).logits()[0].astype(np.float64))
    found, wanted = logits
    assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) > 0.98


# Its answers


def same(answers: list[Answer], expected: list[Answer]) -> bool:
    return [(a.tokens, a.text, a.reuse) for a in answers] == [(a.tokens, a.text, a.reuse) for a in expected]


def talk(gar: Gar, image: np.ndarray | Path, first: np.ndarray | Path, second: np.ndarray | Path) -> list[Answer]:
    """Descriptions and questions about one scene: new regions, the same again, other questions, a longer answer."""
    scene = gar.open(image)
    pair = {0: first, 1: second}
    answers = [scene.describe(region, options=OPTIONS) for region in (first, second, second)]
    for question in ("Is <Prompt0> larger or smaller than <Prompt1>?", "Is <Prompt0> left or right of <Prompt1>?"):
        answers.append(scene.ask(question, pair, options=OPTIONS))
    answers.append(scene.ask("What colour is <Prompt1>?", {1: second}, options=Options(max_new_tokens=90)))
    answers.append(scene.ask("What colour is <Prompt1>?", {1: second}, options=OPTIONS))
    return answers


@pytest.mark.parametrize("chunk", [512, 23])
def test_answers_are_the_standard_decoders(
    compat_bundle: Path, picture: np.ndarray, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token for token, with as much reused; also where a prompt is prefilled in many chunks."""
    monkeypatch.setattr("gar_edge.runtime.engines.onnxruntime.processor.OnnxRuntimeBackend.prefill_chunk", chunk)
    masks = [np.zeros(picture.shape[:2], bool) for _ in range(2)]
    masks[0][5:30, 5:30] = masks[1][60:85, 100:125] = True
    standard, compat = (talk(Gar.load(compat_bundle, decoder=kind), picture, *masks) for kind in ("standard", "compat"))
    assert any(answer.reuse.tokens_reused for answer in compat)
    assert same(compat, standard)


def test_gar_nano_answers_alike(nano: Path) -> None:
    for scene, regions in (("scene_1", (0, 1)), ("scene_1", (3, 2)), ("scene_2", (0, 2))):
        files = [EXAMPLES / f"{scene}.png", *(EXAMPLES / f"{scene}_mask_{number}.png" for number in regions)]
        standard, compat = (talk(Gar.load(nano, decoder=kind), *files) for kind in ("standard", "compat"))
        assert same(compat, standard)


def test_int8_answers(quantised: Path, picture: np.ndarray) -> None:
    answer = Gar.load(quantised, decoder="compat").open(picture).describe(picture[..., 0] > 128, options=OPTIONS)
    assert answer.tokens


# What goes wrong


def test_a_bundle_without_one_says_how_to_get_it(tiny_bundle: Path) -> None:
    with pytest.raises(GarBundleError, match=r"tiny: has no compat decoder; export it again with --compat"):
        Gar.load(tiny_bundle, decoder="compat")


def test_an_unknown_decoder_is_named(tiny_bundle: Path) -> None:
    with pytest.raises(GarBackendError, match="decoder 'fast' is unknown; choose from standard, compat"):
        Gar.load(tiny_bundle, decoder="fast")


def test_int4_has_none(tmp_path: Path) -> None:
    with pytest.raises(GarExportError, match=r"int4 weights in blocks need opset 21.*take int8"):
        export_bundle(tiny(), tmp_path / "b", ExportOptions(Precision.INT4, compat=True), Silent())
    command = [sys.executable, "-m", "gar_edge.export.cli", "--size", "nano", "--int4", "--compat"]
    done = subprocess.run([*command, "-o", str(tmp_path / "b")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--compat goes with --fp32, --fp16, --int8 and --fp8" in " ".join(done.stderr.replace("│", "").split())
    assert not list(tmp_path.iterdir())


def test_the_commands_take_compat(nano: Path) -> None:
    """`gar-run --compat`; the fixture's export is what `gar-export --compat` calls."""
    command = [sys.executable, "-m", "gar_edge.runtime.cli.run", str(EXAMPLES / "scene_1.png"), "-m", str(nano)]
    command += ["--mask", str(EXAMPLES / "scene_1_mask_0.png"), "-q", "What colour is <Prompt0>?"]
    answers = [
        subprocess.run([*command, *extra], capture_output=True, text=True, check=True).stdout
        for extra in ([], ["--compat"])
    ]
    assert answers[0] == answers[1] != ""


def test_validation_catches_a_compat_decoder_that_computes_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Captured.graph

    def slower(traced: Captured, precision: Precision) -> OpenGraph:
        """Positions turn half as fast."""
        graph = original(traced, precision)
        if graph.appends:
            value = graph.model.graph.initializers["frequencies"]
            value.const_value = ir.tensor(value.const_value.numpy() / 2)
        return graph

    monkeypatch.setattr(Captured, "graph", slower)
    with pytest.raises(GarValidationError, match=r"no bundle was kept .*: decoder_compat: max diff") as error:
        export_bundle(tiny(), tmp_path / "b", ExportOptions(compat=True), Silent())
    assert "; decoder:" not in str(error.value)
    assert not list(tmp_path.iterdir())
