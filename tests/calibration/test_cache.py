"""TensorRT's calibration cache: bytes worked by hand, and every line that is not one."""

from pathlib import Path

import numpy as np
import pytest

from gar_edge.calibration.cache import read_cache, write_cache
from gar_edge.calibration.choices import Calibrator
from gar_edge.runtime.errors import GarCalibrationError

HEADER = "TRT-100300-EntropyCalibration2\n"


def test_bytes(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    write_cache(path, {"x": 1.0, "/blocks.0/fc1:0": 0.5, "a: b": 2.0**-7, "é": 0.1})
    expected = HEADER + "x: 3f800000\n/blocks.0/fc1:0: 3f000000\na: b: 3c000000\né: 3dcccccd\n"
    assert path.read_bytes() == expected.encode()


@pytest.mark.parametrize(
    ("calibrator", "algorithm"),
    [
        (Calibrator.ENTROPY, "EntropyCalibration2"),
        (Calibrator.MINMAX, "MinMaxCalibration"),
        (Calibrator.MSE, "EntropyCalibration2"),
        (Calibrator.PERCENTILE, "EntropyCalibration2"),
    ],
)
def test_header(tmp_path: Path, calibrator: Calibrator, algorithm: str) -> None:
    path = tmp_path / "calibration.cache"
    write_cache(path, {}, calibrator, version=101303)
    assert path.read_text() == f"TRT-101303-{algorithm}\n"
    assert read_cache(path) == {}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(1, 0x7F800000, 500, dtype=np.uint32)
    scales = {f"/layer.{i}/a: b:{i}": float(scale) for i, scale in enumerate(bits.view(np.float32))}
    path = tmp_path / "calibration.cache"
    write_cache(path, scales)
    read = read_cache(path, known=scales)
    assert read == scales
    assert list(read) == list(scales)


def test_scales_are_rounded_to_float32(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    write_cache(path, {"x": 0.1})
    assert read_cache(path) == {"x": float(np.float32(0.1))}


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e-60, 1e60])
def test_scales_that_are_none_are_not_written(tmp_path: Path, scale: float) -> None:
    path = tmp_path / "calibration.cache"
    with pytest.raises(GarCalibrationError, match=r"^blocks.0.fc1: .*must be positive and finite$"):
        write_cache(path, {"blocks.0.fc1": scale})
    assert not path.exists()


@pytest.mark.parametrize("tensor", ["", "a\nb", "a\rb"])
def test_names_that_break_lines_are_not_written(tmp_path: Path, tensor: str) -> None:
    with pytest.raises(GarCalibrationError, match="rename the tensor"):
        write_cache(tmp_path / "calibration.cache", {tensor: 1.0})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "first line must be like TRT-100300-EntropyCalibration2, not ''"),
        ("x: 3f800000\n", "first line"),
        ("TRT-10.3-EntropyCalibration2\n", "first line"),
        ("TRT-100300-\n", "first line"),
        (HEADER + "x 3f800000\n", "line 2: expected"),
        (HEADER + "x:3f800000\n", "line 2: expected"),
        (HEADER + ": 3f800000\n", "line 2: expected"),
        (HEADER + "x: 3f80000\n", "line 2: expected"),
        (HEADER + "x: 3f8000000\n", "line 2: expected"),
        (HEADER + "x: 3f80000g\n", "line 2: expected"),
        (HEADER + "x: 3f800000\n\ny: 3f800000\n", "line 3: expected"),
        (HEADER + "x: 00000000\n", "line 2: the scale of x is 0.0"),
        (HEADER + "x: bf800000\n", "line 2: the scale of x is -1.0"),
        (HEADER + "x: 7f800000\n", "line 2: the scale of x is inf"),
        (HEADER + "x: 7fc00000\n", "line 2: the scale of x is nan"),
        (HEADER + "x: 3f800000\nx: 3f800000\n", "line 3: x is named twice"),
    ],
)
def test_what_is_no_cache_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "calibration.cache"
    path.write_text(text)
    with pytest.raises(GarCalibrationError) as error:
        read_cache(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert problem in message
    assert message.endswith("; calibrate again")
    assert "\n" not in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(GarCalibrationError, match="cannot be read"):
        read_cache(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GarCalibrationError, match="cannot be read"):
        read_cache(tmp_path / "binary")


def test_another_systems_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    path.write_bytes((HEADER + "x: 3F800000\n").replace("\n", "\r\n").encode())
    assert read_cache(path) == {"x": 1.0}


def test_another_models_cache_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    write_cache(path, {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "e": 1.0})
    assert len(read_cache(path, known={"a", "b", "c", "d", "e", "f"})) == 5
    with pytest.raises(GarCalibrationError, match=r"made for another model: this one has no e; calibrate again$"):
        read_cache(path, known=["a", "b", "c", "d"])
    with pytest.raises(GarCalibrationError, match=r"has no b, c, d and 1 more; calibrate again$"):
        read_cache(path, known={"a"})
