"""`gar-engine` as a user meets it: output, exit codes, one-line errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.gpu import FakeGpu
from helpers.engine_building import change_version, gar_engine

from gar_edge.runtime.engines.tensorrt.engines import GRAPHS


def test_build_and_info(own_nano: Path, fake_gpu: FakeGpu, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = gar_engine(capsys, "build", own_nano)
    assert (code, out.count("\n")) == (0, 3)
    assert "built in" in out
    code, out, _ = gar_engine(capsys, "build", own_nano, "--json")
    built = json.loads(out)["engines"]
    assert [engine["built"] for engine in built] == [False] * 3
    assert {engine["recipe"]["device"]["name"] for engine in built} == {"Orin"}
    code, out, _ = gar_engine(capsys, "info", own_nano)
    assert (code, out.count("fits this machine")) == (0, 3)
    assert out.count("; built in 0 s; ") == 3
    change_version(fake_gpu)
    code, out, _ = gar_engine(capsys, "info", own_nano)
    assert out.count("cannot run here: built by version 10.15.1.29, here is 10.16.0.1") == 3
    code, out, _ = gar_engine(capsys, "info", own_nano, "--json")
    assert {engine["misfit"] for engine in json.loads(out)["engines"]} == {
        "built by version 10.15.1.29, here is 10.16.0.1"
    }
    assert {engine["recipe"]["graph"] for engine in json.loads(out)["engines"]} == set(GRAPHS)


def test_info_without_engines(own_nano: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = gar_engine(capsys, "info", own_nano)
    assert (code, out.split(".")[0]) == (0, "No engines")


USAGE = {
    "backend": (("--backend", "onnxruntime"), "'onnxruntime' is not tensorrt or tensorrt_rtx"),
    "capacity too small": (("--capacity", "20"), "take 49 to 1024"),
    "capacity beyond the context": (("--capacity", "2000"), "take 49 to 1024"),
    "tiles beyond the context": (("--max-tiles", "99"), "take 1 to 61"),
    "no tiles": (("--max-tiles", "0"), "max-tiles"),
    "capability with tensorrt": (("--compute-capability", "8.6"), "for tensorrt_rtx"),
    "an unknown replay": (("--replay", "fast"), "'fast'"),
    "plugin without its library": (("--replay", "plugin"), "name it with --plugin-library"),
    "library of another form": (("--replay", "aot", "--plugin-library", "x.so"), "belongs to --replay plugin"),
    "unknown option": (("--speed",), "--speed"),
}


@pytest.mark.parametrize("name", sorted(USAGE))
def test_usage_errors_exit_with_2(
    own_nano: Path, fake_gpu: FakeGpu, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    arguments, message = USAGE[name]
    code, out, err = gar_engine(capsys, "build", own_nano, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def break_nothing(gpu: FakeGpu) -> None:
    pass


def no_gpu(gpu: FakeGpu) -> None:
    gpu.cuda.present = False


@pytest.mark.parametrize(
    ("bundle", "arguments", "change", "message"),
    [
        ("nowhere", (), break_nothing, "nowhere: no such bundle"),
        (None, ("--plugin-library", "nowhere.so"), break_nothing, "nowhere.so: no such plugin library"),
        (None, (), no_gpu, "no NVIDIA GPU can be used here"),
    ],
)
def test_failures_are_one_line_and_exit_with_1(
    own_nano: Path,
    fake_gpu: FakeGpu,
    capsys: pytest.CaptureFixture[str],
    bundle: str | None,
    arguments: tuple[str, ...],
    change: Callable[[FakeGpu], None],
    message: str,
) -> None:
    change(fake_gpu)
    code, out, err = gar_engine(capsys, "build", bundle or own_nano, *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err


def test_no_tensorrt_at_all_is_one_line(
    own_nano: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    code, _, err = gar_engine(capsys, "build", own_nano)
    assert (code, err.count("\n")) == (1, 1)
    assert "TensorRT is not installed; pip install 'gar-edge[tensorrt]'" in err
