"""TensorRT's calibration cache: text with one scale a tensor, for builders up to 10.x that quantise by themselves.

The first line is `TRT-<version>-<algorithm>`; every other line is `<tensor>: <scale>`, the scale being a big-endian
float32 in eight hexadecimal digits. A tensor's name may hold `:` and `/`.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Collection, Mapping
from pathlib import Path

from gar_edge.calibration.choices import Calibrator
from gar_edge.runtime.errors import GarCalibrationError

VERSION = 100300  # TensorRT 10.3.0, that of JetPack 6.1 and 6.2

_HEADER = re.compile(r"TRT-\d+-\w+")
_LINE = re.compile(r"(?P<tensor>.+): (?P<scale>[0-9a-fA-F]{8})")


def write_cache(
    path: Path,
    scales: Mapping[str, float],
    calibrator: Calibrator = Calibrator.ENTROPY,
    version: int = VERSION,
) -> None:
    """Write `scales` (threshold / 127, by tensor) for TensorRT `version` (10000 * major + 100 * minor + patch).

    TensorRT knows two algorithms; a cache by any other calibrator is named after its entropy calibrator, since it only
    reads the scales. Raises GarCalibrationError for a scale or a name that the format cannot hold.
    """
    algorithm = "MinMaxCalibration" if calibrator is Calibrator.MINMAX else "EntropyCalibration2"
    lines = [f"TRT-{version}-{algorithm}"]
    for tensor, scale in scales.items():
        if not tensor or "\n" in tensor or "\r" in tensor:
            raise GarCalibrationError(f"{tensor!r}: a calibration cache cannot hold this name; rename the tensor")
        lines.append(f"{tensor}: {_hexadecimal(tensor, scale)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def read_cache(path: Path, known: Collection[str] | None = None) -> dict[str, float]:
    """The scales of a cache, by tensor, in the file's order.

    known: the tensors of the model that it shall serve; None is any. Raises GarCalibrationError when the file cannot
    be read, is not such a cache, or names tensors that are not known.
    """
    try:
        header, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise GarCalibrationError(f"{path}: calibration cache cannot be read ({error}); calibrate again") from None
    if not _HEADER.fullmatch(header):
        raise GarCalibrationError(
            f"{path}: not a calibration cache: the first line must be like "
            f"TRT-{VERSION}-EntropyCalibration2, not {header[:60]!r}; calibrate again"
        )
    scales: dict[str, float] = {}
    for number, line in enumerate(lines, start=2):
        match = _LINE.fullmatch(line)
        if match is None:
            problem = f"expected 'tensor: scale in 8 hexadecimal digits', not {line[:120]!r}"
            raise GarCalibrationError(f"{path}: line {number}: {problem}; calibrate again")
        tensor = match["tensor"]
        (scale,) = struct.unpack(">f", bytes.fromhex(match["scale"]))
        if not 0 < scale < math.inf:
            raise GarCalibrationError(f"{path}: line {number}: the scale of {tensor} is {scale}; calibrate again")
        if tensor in scales:
            raise GarCalibrationError(f"{path}: line {number}: {tensor} is named twice; calibrate again")
        scales[tensor] = scale
    foreign = [] if known is None else [tensor for tensor in scales if tensor not in known]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise GarCalibrationError(
            f"{path}: made for another model: this one has no {', '.join(foreign[:3])}{more}; calibrate again"
        )
    return scales


def _hexadecimal(tensor: str, scale: float) -> str:
    """A scale as eight digits."""
    try:
        packed = struct.pack(">f", scale)
    except OverflowError:
        packed = struct.pack(">f", math.inf)
    if not 0 < struct.unpack(">f", packed)[0] < math.inf:
        raise GarCalibrationError(f"{tensor}: {scale} is no scale in float32: it must be positive and finite")
    return packed.hex()
