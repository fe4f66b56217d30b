"""Cues to masks by a Segment-Anything pair of ONNX graphs (Kirillov et al. 2023) that the user points to.

The decoder is what the segment-anything repository's export script writes: `image_embeddings`, `point_coords`,
`point_labels`, `mask_input`, `has_mask_input`, `orig_im_size` -> `masks`, `iou_predictions`. The encoder takes one
picture [1,3,S,S], the longest side scaled to S, normalised, padded to the right and below with zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gar_edge.runtime.engines.onnxruntime.processor import CPU
from gar_edge.runtime.engines.onnxruntime.session import ERRORS_ONLY
from gar_edge.runtime.engines.telemetry import import_onnxruntime
from gar_edge.runtime.errors import GarBackendError, GarMaskError
from gar_edge.runtime.regions.cues import Cue, Marks, spaced
from gar_edge.runtime.regions.rle import Mask

if TYPE_CHECKING:
    import onnxruntime

SIDE = 1024  # of the encoder's picture, where the graph leaves it open
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of RGB 0…255
INSIDE, OUTSIDE, UPPER_LEFT, LOWER_RIGHT, PADDING = 1.0, 0.0, 2.0, 3.0, -1.0  # point_labels
MOST_POINTS = 16  # that stand for a scribble
DECODER_INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size")
DECODER_OUTPUTS = ("masks", "iou_predictions")


class Sam:
    """A segmenter: `sam(image, cue)`. It keeps the features of the last picture, so more cues of it cost little.

    One thread at a time.
    """

    def __init__(self, encoder: str | Path, decoder: str | Path, threads: int = 0) -> None:
        """Load both graphs; `GarBackendError` where one is missing, damaged or of another kind.

        threads: processor threads, 0 for all cores.
        """
        self._encoder, self._decoder = _session(encoder, threads), _session(decoder, threads)
        inputs = self._encoder.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise GarBackendError(f"{encoder}: not a SAM image encoder; it must take one picture [1,3,{SIDE},{SIDE}]")
        self._pixels = inputs[0].name
        side = inputs[0].shape[2]
        self._side = side if isinstance(side, int) else SIDE
        known = {one.name for one in (*self._decoder.get_inputs(), *self._decoder.get_outputs())}
        missing = [name for name in (*DECODER_INPUTS, *DECODER_OUTPUTS) if name not in known]
        if missing:
            raise GarBackendError(
                f"{decoder}: not a SAM mask decoder, it lacks {', '.join(missing)}; "
                "export it with the segment-anything repository's export_onnx_model.py"
            )
        self._last: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = None

    def __call__(self, image: NDArray[np.uint8], cue: Cue) -> Mask:
        """The region of an RGB picture [H,W,3] that the cue means, as bool [H,W]; `GarMaskError` where none is seen."""
        height, width = image.shape[:2]
        marks = cue.marks(width, height)
        if self._last is None or self._last[0] is not image:
            self._last = image, self._embed(image)
        embeddings = self._last[1]
        points, labels = _prompt(marks)
        shrunk = np.divide(_scaled(width, height, self._side), (width, height))
        inputs: dict[str, Any] = {
            "image_embeddings": embeddings,
            "point_coords": (points * shrunk).astype(np.float32)[None],
            "point_labels": labels[None],
            "mask_input": np.zeros((1, 1, 4 * embeddings.shape[2], 4 * embeddings.shape[3]), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array([height, width], np.float32),
        }
        masks, scores = _run(self._decoder, list(DECODER_OUTPUTS), inputs)
        mask: Mask = masks[0, int(np.argmax(scores[0]))] > 0
        if mask.shape != (height, width):
            raise GarBackendError(f"the SAM decoder made no mask of {width}x{height} but {mask.shape}")
        if not mask.any():
            raise GarMaskError(f"the SAM decoder sees no region at {cue}; give another box or more points")
        return mask

    def _embed(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = image.shape[:2]
        size = _scaled(width, height, self._side)
        resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR), np.float32)
        pixels = np.zeros((1, 3, self._side, self._side), np.float32)
        normal = (resized - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
        pixels[0, :, : size[1], : size[0]] = normal.transpose(2, 0, 1)
        embeddings: NDArray[np.float32] = _run(self._encoder, None, {self._pixels: pixels})[0]
        return embeddings


def _prompt(marks: Marks) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Points [N,2] in the picture's pixels and their labels [N]; a padding point says that there is no box."""
    inside, outside = spaced(marks.inside, MOST_POINTS), spaced(marks.outside, MOST_POINTS)
    labels = [INSIDE] * len(inside) + [OUTSIDE] * len(outside)
    corners, kinds = np.zeros((1, 2)), [PADDING]
    if marks.bounds is not None:
        corners, kinds = np.reshape(marks.bounds, (2, 2)).astype(float), [UPPER_LEFT, LOWER_RIGHT]
    return np.concatenate([inside + 0.5, outside + 0.5, corners]), np.array(labels + kinds, np.float32)


def _scaled(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height with the longer one brought to `side`."""
    scale = side / max(width, height)
    return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


def _session(path: str | Path, threads: int) -> onnxruntime.InferenceSession:
    ort = import_onnxruntime()
    if not Path(path).is_file():
        raise GarBackendError(f"{path}: no such SAM graph; give an ONNX file")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS_ONLY
    try:
        return ort.InferenceSession(str(path), options, providers=[CPU])
    except Exception as problem:  # onnxruntime raises types of its own for each kind of damage
        raise GarBackendError(f"{path}: cannot be loaded ({' '.join(str(problem).split())})") from None


def _run(session: Any, outputs: list[str] | None, inputs: dict[str, Any]) -> list[Any]:
    try:
        found: list[Any] = session.run(outputs, inputs)
    except Exception as problem:
        raise GarBackendError(f"the SAM graph failed: {' '.join(str(problem).split())}") from None
    return found
