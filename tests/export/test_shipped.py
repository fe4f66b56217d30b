"""The gar-nano bundle in the package is what exporting gar-nano gives today, at half the size."""

import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.export.shipped import main, store_compactly
from gar_edge.models.checkpoint import open_checkpoint, shipped_checkpoint
from gar_edge.models.nano import exam
from gar_edge.models.sizes import Size
from gar_edge.runtime import Gar
from gar_edge.runtime.bundle.bundle import Bundle, read_manifest
from gar_edge.runtime.bundle.shipped import NANO, SHIPPED
from gar_edge.runtime.files.paths import last_bundle

AGAIN = "the bundle in runtime/nano_bundle is not what gar-export writes now: make nano-bundle"
TOOLS = ("torch", "onnx", "onnx-ir")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gar-nano as gar-export writes it."""
    checkpoint = open_checkpoint(shipped_checkpoint(Size.NANO), name=NANO)
    folder = tmp_path_factory.mktemp("plain") / "nano"
    return export_bundle(checkpoint, folder, ExportOptions(Precision.FP32, validate=False), Silent()).folder


@pytest.fixture(scope="module")
def compact(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compact") / "nano"
    store_compactly(plain, folder)
    return folder


def test_it_is_todays_export(compact: Path) -> None:
    now, there = read_manifest(compact), read_manifest(SHIPPED)
    for field in ("schema", "dimensions", "preprocess", "replay", "prompt", "work", "graphs", "token_table"):
        assert getattr(there, field) == getattr(now, field), f"{field}: {AGAIN}"
    same_tools = all(there.versions[tool] == now.versions[tool] for tool in TOOLS)
    for name, entry in now.files.items():
        if same_tools or not name.endswith(".onnx"):  # another torch may name a node otherwise
            assert there.files[name] == entry, f"{name}: {AGAIN}"


def test_every_number_is_the_exports_own(plain: Path) -> None:
    """Bit for bit, on the same input: what float16 would change is stored as float32."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (3, 3, 112, 112), np.uint8)
    feeds = {
        "encoder.onnx": {"pixels": pixels, "mask": rng.random((3, 1, 112, 112)) > 0.5},
        "decoder.onnx": {
            "inputs_embeds": rng.normal(size=(1, 9, 128)).astype(np.float32),
            "write_index": np.zeros(1, np.int64),
            "attention_mask": np.tril(np.ones((9, 9), np.bool_))[None, None],
            "select": np.arange(9),
        },
    }
    for name, feed in feeds.items():
        given, taken = (_run(folder / name, feed) for folder in (plain, SHIPPED))
        assert given.keys() == taken.keys()
        for output, values in given.items():
            assert np.array_equal(values, taken[output]), (name, output)


def _run(graph: Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
    full = {}
    for port in session.get_inputs():
        if port.name in feed:
            full[port.name] = feed[port.name].astype(kinds.get(port.type, feed[port.name].dtype))
        else:  # a cache of nine slots
            full[port.name] = np.zeros((1, port.shape[1], 9, port.shape[3]), np.float32)
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, full), strict=True))


def test_answers_are_the_exports_own(plain: Path) -> None:
    engine = {"backend": "onnxruntime", "threads": 1}
    with Gar.load(plain, **engine) as exported, Gar.load(SHIPPED, **engine) as shipped:
        for index in range(3):
            questions = exam.scene(1105, index)
            one, other = (gar.open(questions[0].scene.image) for gar in (exported, shipped))
            for question in questions:
                asked, masks = question.turn.question, question.masks
                given, taken = (scene.stream(asked, masks).finish() for scene in (one, other))
                assert taken.tokens == given.tokens


def test_its_tables_rows_are_the_checkpoints_embeddings(plain: Path) -> None:
    ids = np.arange(715)
    assert np.array_equal(Bundle.open(SHIPPED).embed(ids), Bundle.open(plain).embed(ids))


def test_its_digests_are_those_of_its_files() -> None:
    for name, entry in read_manifest(SHIPPED).files.items():
        content = (SHIPPED / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.bytes, entry.sha256), name


def test_it_is_small_and_its_graphs_are_valid() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 4_000_000
    for name in ("encoder.onnx", "decoder.onnx"):
        onnx.checker.check_model(SHIPPED / name)


def test_one_command_makes_it_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = last_bundle()
    (tmp_path / "nano").mkdir()
    (tmp_path / "nano" / "engine.of.yesterday").write_bytes(b"")
    main([str(tmp_path / "nano")])
    assert re.search(r"gar-nano-fp32, 3\.\d\d MB", capsys.readouterr().out)
    assert {file.name for file in (tmp_path / "nano").iterdir()} == {file.name for file in SHIPPED.iterdir()}
    assert last_bundle() == last
