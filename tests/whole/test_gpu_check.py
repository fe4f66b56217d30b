"""`make gpu-check` where there is no GPU: its stages on fakes and on the processor, its page, its pieces."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fakes.onnxruntime import FakeOnnxRuntime

HERE = Path(__file__).parents[1] / "gpu"
STAGES = ("machine", "replay", "cutter", "nano", "fp16", "pytorch", "int4", "tensorrt")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Its modules, which are scripts and import one another by their bare names."""
    monkeypatch.syspath_prepend(str(HERE))
    return {name: importlib.import_module(name) for name in ("stages", "page", "check", "pieces")}


def measured(fp16: float = 40.0, host: float = 0.2, same: int = 200) -> dict[str, Any]:
    """A report with PyTorch at 100 ms and 50 tokens/s."""
    ours = {"first_token_ms": fp16, "decode_tokens_per_s": 4000 / fp16, "host_share": host, "prompt_tokens": 4160,
            "tiles": 15, "new_tokens": 128}  # fmt: skip
    kernel = {"kernel": 12.0, "unfused": 300.0, "copy": 10.0, "times_the_copy": 1.2, "distance": 3e-4}
    stages = {
        "machine": {"gpu": "NVIDIA H100", "versions": {"onnxruntime-gpu": "1.31.1"}, "torch": "2.11.0"},
        "replay": {"float16, 1 regions": kernel}, "nano": {"answers": 200, "same": same}, "fp16": ours,
        "pytorch": {"first_token_ms": 100.0, "decode_tokens_per_s": 50.0},
        "tensorrt": {"title": "TensorRT 10.15.1", "build_seconds": {"encoder": 12.0, "decoder": 30.4}, "answers": 100,
                     "same": same // 2, "tiles": 5, "prompt_tokens": 160, "first_token_ms": 3.0,
                     "decode_tokens_per_s": 900.0},
    }  # fmt: skip
    return {"date": "2026-11-29", "dry": False, "seconds": 401.0, "stages": stages, "failed": {"int4": "no time"}}


def test_the_page_has_device_versions_date_and_verdicts(gpu: dict[str, ModuleType]) -> None:
    text = gpu["page"].page(measured())
    assert text.startswith(
        "## On NVIDIA H100\n\n`make gpu-check`, 2026-11-29, 401 s; onnxruntime-gpu 1.31.1, torch 2.11.0."
    )
    assert (
        "| replay kernel, float16, 1 regions | 12.0 µs, 1.20 times a copy; torch 300.0 µs | 3.0e-04 from torch |"
        in text
    )
    assert (
        "| fp16, first token (15 tiles, 4160 tokens of prompt) | 40.0 ms | reached: 2 times PyTorch's, 2.50x |" in text
    )
    assert "| fp16, decode of 128 | 100.0 tokens/s | reached: 2 times PyTorch's, 2.00x |" in text
    assert "| int4 | failed | no time |" in text
    assert "| gar-nano, TensorRT, build | encoder 12 s, decoder 30 s | TensorRT 10.15.1 |" in text
    assert "| gar-nano, TensorRT | 100 of 100 the same | reached: all |" in text
    assert "| gar-nano, TensorRT, decode | 900.0 tokens/s |  |" in text
    assert gpu["page"].missed(measured()) == []


def test_what_is_missed_is_named(gpu: dict[str, ModuleType]) -> None:
    found = gpu["page"].missed(measured(fp16=51.0, host=0.26, same=199))
    assert [name.split(" (")[0] for name in found] == [
        "gar-nano, fp16", "fp16, first token", "fp16, decode of 128", "fp16, host's share", "gar-nano, TensorRT"
    ]  # fmt: skip
    assert gpu["page"].missed(measured(fp16=51.0) | {"dry": True}) == []


def test_stages_on_a_faked_gpu(
    gpu: dict[str, ModuleType],
    half_nano: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fake_provider: FakeOnnxRuntime,
) -> None:
    """The CUDA provider's own way, on the fake that refuses what the real one would: token for token, with figures."""
    stages = gpu["stages"]
    for name in ("nano-fp16", "1b-fp16"):
        shutil.copytree(half_nano, tmp_path / name)
    monkeypatch.setattr(stages, "ANSWERS", 4)
    monkeypatch.setattr(stages, "CUTS", 1)
    monkeypatch.setattr(stages, "ROUNDS", 1)
    monkeypatch.setattr(stages, "TILES", 4)
    monkeypatch.setattr(stages, "NEW_TOKENS", 4)
    for name in ("cutter", "nano", "fp16"):
        stages.main(name, tmp_path, dry=False)
    cut = json.loads((tmp_path / "cutter.json").read_text())
    assert [(one["different"], one["most"]) for one in cut.values()] == [(0, 0)] * 3
    assert min(one[f"{what}_ms"] for one in cut.values() for what in ("host", "take", "cut", "kernels", "copy")) > 0
    nano, fp16 = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("nano", "fp16"))
    assert (nano["answers"], nano["same"]) == (4, 4)
    assert (fp16["tiles"], fp16["new_tokens"]) == (5, 4)
    assert 0 < fp16["host_share"] < 1
    assert fp16["first_token_ms"] >= fp16["encode_ms"] + fp16["prefill_ms"] > 0
    assert fake_provider.cuda.calls["enqueue"] > 20


def test_the_dry_run_writes_a_report_and_a_page(half_nano: Path, tmp_path: Path) -> None:
    """As typed, with bundles that are there already; one that is broken fails its stage and no other."""
    shutil.copytree(half_nano, tmp_path / "nano-fp16")
    broken = shutil.copytree(half_nano, tmp_path / "nano-int4")
    (broken / "decoder.onnx").write_bytes(b"")
    command = [sys.executable, HERE / "check.py", "--dry", "--out", tmp_path, "--seconds", "600"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert set(report["stages"]) | {"int4"} == set(STAGES), done.stderr
    assert set(report["failed"]) == {"int4"}
    assert "decoder.onnx" in report["failed"]["int4"]
    assert done.returncode == 1
    assert done.stdout == (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "nothing here is a measurement" in done.stdout
    assert report["stages"]["replay"]["distance"] < 1e-5
    tensorrt = report["stages"]["tensorrt"]
    assert (tensorrt["same"], tensorrt["answers"]) == (12, 12)
    assert set(tensorrt["build_seconds"]) == {"encoder", "roi_replay", "decoder"}
    assert "| gar-nano, TensorRT | 12 of 12 the same | not judged (all) |" in done.stdout


def test_tensorrt_is_skipped_with_the_reason_where_there_is_none(
    gpu: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    gpu["stages"].main("tensorrt", tmp_path, dry=False)
    found = json.loads((tmp_path / "tensorrt.json").read_text())
    assert found["skipped"].startswith("TensorRT ")
    report = measured()
    report["stages"]["tensorrt"] = found
    assert f"| gar-nano, TensorRT | skipped | {found['skipped']} |" in gpu["page"].page(report)
    assert gpu["page"].missed(report) == []


def test_a_stage_has_a_limit(gpu: dict[str, ModuleType], tmp_path: Path) -> None:
    assert gpu["check"].run_stage("machine", tmp_path, True, 0.01) == "not done within 0 s"
    assert gpu["check"].run_stage("machine", tmp_path, True, 0) == "no time was left"


def wheel(folder: Path) -> Path:
    """A package of one module, random enough not to be the same in every piece."""
    path = folder / "carried-1.0-py3-none-any.whl"
    info = "carried-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("carried.py", f"DIGITS = {2**4000}\n")
        made.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n")
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{info}/RECORD", "")
    return path


def test_pieces_are_put_together_and_installed(gpu: dict[str, ModuleType], tmp_path: Path) -> None:
    import tarfile

    pieces = gpu["pieces"]
    with tarfile.open(tmp_path / "wheels.tar", "w") as tar:
        tar.add(wheel(tmp_path), "carried-1.0-py3-none-any.whl")
    sizes = pieces.split(tmp_path / "wheels.tar", tmp_path / "pieces", 1000)
    assert sum(sizes.values()) == (tmp_path / "wheels.tar").stat().st_size
    assert max(sizes.values()) == 1000
    assert len(sizes) > 3
    command = [sys.executable, HERE / "pieces.py", "join", tmp_path / "pieces", tmp_path / "site"]
    subprocess.run(command, check=True, capture_output=True)
    code = "import carried; print(carried.DIGITS == 2 ** 4000)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path / "site")}, capture_output=True, check=True
    )
    assert done.stdout == b"True\n"


@pytest.mark.parametrize("harm", ["missing", "altered", "cut"])
def test_a_piece_that_did_not_arrive_whole_is_named(gpu: dict[str, ModuleType], tmp_path: Path, harm: str) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 10)
    gpu["pieces"].split(tmp_path / "file", tmp_path / "pieces", 1000)
    piece = tmp_path / "pieces" / "piece-01"
    if harm == "missing":
        piece.unlink()
    else:
        piece.write_bytes(piece.read_bytes()[:-1] + (b"!" if harm == "altered" else b""))
    with pytest.raises(SystemExit, match=r"piece-01: (missing|not what was packed)"):
        gpu["pieces"].put_together(tmp_path / "pieces", tmp_path / "whole")
