"""Bundles: what is in them, that they appear whole or not at all, and that validation catches a wrong graph."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from helpers.shapes import SHAPES

from gar_edge.export import bundle_writer, validate
from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.standin import random_checkpoint_of
from gar_edge.models.weights import TOKEN_TABLE
from gar_edge.runtime import Gar, Options
from gar_edge.runtime.errors import GarCheckpointError, GarExportError, GarValidationError
from gar_edge.runtime.files.paths import HOME, last_bundle

QUICK = ExportOptions(validate=False)


def tiny() -> Checkpoint:
    return random_checkpoint_of(SHAPES["tied"], "tiny")


def nothing_but(folder: Path, *names: str) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_validation_passes_and_is_kept_in_the_manifest(checkpoint: Checkpoint, tmp_path: Path) -> None:
    exported = export_bundle(checkpoint, tmp_path / "b", ExportOptions(), Silent())
    assert exported.report is not None
    assert [check.name for check in exported.report.checks if check.ok] == [
        "contract", "encoder", "roi_replay", "decoder", "pipeline",
    ]  # fmt: skip
    figures = json.loads((tmp_path / "b" / "gar.json").read_text())["validation"]
    assert figures["encoder"]["cosine"] > 0.999999
    assert figures["decoder"]["max_abs"] < 1e-3
    assert len(figures["pipeline"]["tokens"]) == validate.TOKENS


def test_graphs_are_standard_operators_with_real_norms(bundle: Path, checkpoint: Checkpoint) -> None:
    depth, layers = checkpoint.config.vision.depth, checkpoint.config.text.layers
    nodes = {}
    for name, opset in (("encoder", 20), ("decoder", 24), ("roi_replay", 20)):
        model = onnx.load(str(bundle / f"{name}.onnx"), load_external_data=False)
        assert {entry.domain: entry.version for entry in model.opset_import}[""] == opset
        nodes[name] = Counter(node.op_type for node in model.graph.node)
        assert {node.domain for node in model.graph.node} <= {"", "gar"}
    assert nodes["encoder"]["LayerNormalization"] == 2 * depth + 1
    assert nodes["encoder"]["Conv"] == 2  # of pixels and of the mask
    assert nodes["decoder"]["RMSNormalization"] == 2 * layers + 1
    assert nodes["decoder"]["TensorScatter"] == 2 * layers
    assert nodes["decoder"]["Attention"] == layers
    assert nodes["roi_replay"] == {"RoiReplay": 1}
    assert not {"Pow", "ReduceMean", "Transpose_0"} & nodes["decoder"].keys()


def test_onnx_checks_the_graphs(bundle: Path) -> None:
    for name in ("encoder", "decoder", "roi_replay"):
        onnx.checker.check_model(str(bundle / f"{name}.onnx"), full_check=True)


def test_weights_are_external_and_written_once(bundle: Path, checkpoint: Checkpoint) -> None:
    for name in ("encoder", "decoder"):
        assert (bundle / f"{name}.onnx").stat().st_size < 200_000
    model = ir.load(bundle / "decoder.onnx")
    head = model.graph.initializers["head"].const_value
    assert isinstance(head, ir.ExternalTensor)
    assert (head.location == "token_table.bin") == checkpoint.tied
    np.testing.assert_array_equal(head.numpy(), checkpoint.weights.tensor(
        TOKEN_TABLE if checkpoint.tied else "mllm.lm_head.weight").numpy())  # fmt: skip


def test_no_path_of_the_exporting_machine_is_left_in_the_graphs(bundle: Path) -> None:
    here = str(Path(__file__).parents[2]).encode()
    for path in bundle.glob("*.onnx"):
        assert here not in path.read_bytes()


def test_fp16_halves_the_weights_and_answers_alike(tmp_path: Path, tiny_bundle: Path, picture: np.ndarray) -> None:
    exported = export_bundle(tiny(), tmp_path / "half", ExportOptions(Precision.FP16), Silent())
    assert exported.report is not None
    assert exported.report.ok
    for name in ("encoder.onnx.data", "decoder.onnx.data", "token_table.bin"):
        ratio = (tmp_path / "half" / name).stat().st_size / (tiny_bundle / name).stat().st_size
        assert 0.5 <= ratio < 0.75  # small tensors are padded to pages
    mask = np.ones(picture.shape[:2], bool)
    answer = Gar.load(tmp_path / "half").open(picture).describe(mask, options=Options(max_new_tokens=1))
    assert len(answer.tokens) == 1


def test_an_onnx_runtime_that_cannot_validate_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gar_edge.export.bundle_writer.knows_newest_operators", lambda ort: False)
    with pytest.raises(GarExportError, match=r"too old to validate: opset 24 takes onnxruntime 1\.26.*--no-validate"):
        export_bundle(tiny(), tmp_path / "a", ExportOptions(), Silent())
    assert nothing_but(tmp_path)
    export_bundle(tiny(), tmp_path / "b", QUICK, Silent())


def test_the_last_export_is_remembered(tmp_path: Path) -> None:
    export_bundle(tiny(), tmp_path / "a", QUICK, Silent())
    export_bundle(tiny(), tmp_path / "b", QUICK, Silent())
    assert last_bundle() == tmp_path / "b"


def test_max_tiles_goes_into_the_manifest(tmp_path: Path) -> None:
    exported = export_bundle(tiny(), tmp_path / "a", replace(QUICK, max_tiles=3), Silent())
    assert exported.manifest.preprocess.max_tiles == 3


def test_more_tiles_than_the_context_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GarExportError, match="--max-tiles must be 1 to 253"):
        export_bundle(tiny(), tmp_path / "a", replace(QUICK, max_tiles=254), Silent())
    assert nothing_but(tmp_path)


def test_an_existing_bundle_is_replaced_only_by_force(tmp_path: Path) -> None:
    export_bundle(tiny(), tmp_path / "a", QUICK, Silent())
    with pytest.raises(GarExportError, match="--force"):
        export_bundle(tiny(), tmp_path / "a", QUICK, Silent())
    export_bundle(tiny(), tmp_path / "a", replace(QUICK, force=True, max_tiles=2), Silent())
    assert Gar.load(tmp_path / "a").manifest.preprocess.max_tiles == 2
    assert nothing_but(tmp_path, "a")


def test_force_that_fails_in_the_last_moment_gives_the_old_bundle_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_bundle(tiny(), tmp_path / "a", QUICK, Silent())
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if ".partial-" in self.name and not self.name.endswith("-old"):
            raise OSError(errno.EIO, "the disk is gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(GarExportError, match="the disk is gone"):
        export_bundle(tiny(), tmp_path / "a", replace(QUICK, force=True, max_tiles=2), Silent())
    assert Gar.load(tmp_path / "a").manifest.preprocess.max_tiles == 6
    assert nothing_but(tmp_path, "a")


def test_a_home_that_cannot_be_written_to_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(HOME, str(tmp_path / "file" / "home"))
    with pytest.warns(UserWarning, match="gar-run will need --model"):
        export_bundle(tiny(), tmp_path / "a", QUICK, Silent())
    assert (tmp_path / "a" / "gar.json").exists()


def test_force_does_not_replace_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious.txt").write_text("x")
    with pytest.raises(GarExportError, match="not a bundle"):
        export_bundle(tiny(), tmp_path / "home", replace(QUICK, force=True), Silent())
    assert (tmp_path / "home" / "precious.txt").exists()


def test_a_graph_that_computes_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The torch side gets another model than the one that was written."""
    other = random_checkpoint_of(SHAPES["tied"], "tiny", seed=1)
    original = validate.validate
    monkeypatch.setattr(bundle_writer, "validate", lambda _, *rest: original(other, *rest))
    with pytest.raises(GarValidationError, match=r"encoder: max diff .*allowed: cosine") as error:
        export_bundle(tiny(), tmp_path / "a", ExportOptions(), Silent())
    assert isinstance(error.value.report, validate.Report)
    assert [check.ok for check in error.value.report.checks][:2] == [True, False]
    assert "roi_replay" not in str(error.value)  # has no weights: it is still right
    assert nothing_but(tmp_path)


def test_too_little_memory_for_validation_is_said_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "MEMORY_FACTOR", 1e9)
    exported = export_bundle(tiny(), tmp_path / "a", ExportOptions(), Silent())
    assert exported.report is not None
    assert [(check.name, check.ok) for check in exported.report.checks] == [("contract", True), ("numerics", None)]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(bundle_writer.DataFile, "append", full)
    with pytest.raises(GarExportError, match="the disk is full"):
        export_bundle(tiny(), tmp_path / "a", QUICK, Silent())
    assert nothing_but(tmp_path)


def test_too_small_a_disk_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(bundle_writer.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(GarExportError, match=r"0\.1 GB needed, 0\.0 GB free"):
        export_bundle(tiny(), tmp_path / "a", QUICK, Silent())
    assert nothing_but(tmp_path)


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GarExportError, match="cannot be written to"):
        export_bundle(tiny(), tmp_path / "file" / "a", QUICK, Silent())


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing_behind(tmp_path: Path, kind: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "gar_edge.export.cli",
        "--size",
        "nano",
        "--random-weights",
        "-o",
        str(tmp_path / "a"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".a.partial-*/*.data")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(kind)
        _, stderr = process.communicate()
    assert process.returncode == 1
    assert "error: interrupted" in stderr
    assert "Traceback" not in stderr
    assert nothing_but(tmp_path)


def test_what_a_killed_export_left_is_swept_by_the_next(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    old, fresh, alive = (tmp_path / f".a.partial-{pid}" for pid in (gone.pid, f"0{gone.pid}", f"0{os.getpid()}"))
    for folder in (old, fresh, alive):
        folder.mkdir()
    for folder in (old, alive):
        os.utime(folder, (time.time() - 4000,) * 2)
    export_bundle(tiny(), tmp_path / "a", QUICK, Silent())
    assert nothing_but(tmp_path, "a", fresh.name, alive.name)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    checkpoint = tiny()
    foreign = random_checkpoint_of(replace(SHAPES["tied"], first_special_token=310), "foreign")
    with pytest.raises(GarCheckpointError, match="the tokenizer has 328 tokens, the token table 318"):
        export_bundle(replace(checkpoint, tokenizer_json=foreign.tokenizer_json), tmp_path / "a", QUICK, Silent())
    broken = checkpoint.chat_template + "{% generation %}"
    with pytest.raises(GarCheckpointError, match="chat template cannot be used"):
        export_bundle(replace(checkpoint, chat_template=broken), tmp_path / "a", QUICK, Silent())
    with pytest.raises(GarCheckpointError, match="never writes the image token"):
        export_bundle(replace(checkpoint, chat_template="{{ bos_token }}"), tmp_path / "a", QUICK, Silent())
    assert nothing_but(tmp_path)
