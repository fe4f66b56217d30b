"""Cues to masks by a Segment-Anything pair of ONNX graphs (Kirillov et al. 2023; SAM 2, Ravi et al. 2024).

The decoder is what the segment-anything repository's export script writes, or one like it: the picture's features,
`point_coords`, `point_labels` and, where it takes them, `mask_input`, `has_mask_input`, `orig_im_size` -> masks and
their scores. Masks are taken at the decoder's own resolution where it gives them (`low_res_masks`) and scaled here:
decoders exported by the package on PyPI crop to the picture that was there at export. SAM brings the longest side to
the encoder's and pads to the right and below; SAM 2, known by its `high_res_feats_*`, squeezes it into a square.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gar_edge.runtime.engines.onnxruntime.exact_products import keep_exact, products_saturate
from gar_edge.runtime.engines.onnxruntime.processor import CPU
from gar_edge.runtime.engines.onnxruntime.session import ERRORS_ONLY
from gar_edge.runtime.engines.telemetry import import_onnxruntime
from gar_edge.runtime.errors import GarBackendError, GarMaskError
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.regions.cues import Cue, Marks, spaced

if TYPE_CHECKING:
    import onnxruntime

SIDE = 1024  # of the encoder's picture, where the graph leaves it open
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of RGB 0…255
INSIDE, OUTSIDE, UPPER_LEFT, LOWER_RIGHT, PADDING = 1.0, 0.0, 2.0, 3.0, -1.0  # point_labels
MOST_POINTS = 16  # that stand for a scribble
FEATURES = ("image_embeddings", "image_embed")  # of SAM, of SAM 2
PROMPT = ("point_coords", "point_labels")
OPTIONAL = ("mask_input", "has_mask_input", "orig_im_size")
MASKS = ("low_res_masks", "masks")  # the first that a decoder gives
SCORES = ("iou_predictions", "scores")
_HIGH_RESOLUTION = "high_res_feats_"
_TYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_,
}  # fmt: skip
_COLOURS = 3

Session = Any  # onnxruntime's, or one like it


@dataclass(frozen=True)
class _Pixels:
    """What an encoder takes: its input's name and type, the order of its axes ("NCHW", "HWC", …), height and width.

    raw: colours 0…255, which the graph itself normalises (and pads), rather than normalised ones.
    """

    name: str
    dtype: type[Any]
    axes: str
    height: int
    width: int
    raw: bool

    @classmethod
    def of(cls, port: Any) -> _Pixels | None:
        """By the input's shape; None where it is no picture's."""
        shape = list(port.shape)
        orders = {4: ["NCHW", "NHWC"], 3: ["CHW", "HWC"]}.get(len(shape), [])
        unknown = "NCHW" if len(shape) == 4 else None
        found = next((one for one in orders if shape[one.index("C")] == _COLOURS), unknown)
        if found is None or port.type not in _TYPES:
            return None
        height, width = (
            side if isinstance(side := shape[found.index(axis)], int) and side > 0 else SIDE for axis in "HW"
        )
        dtype = _TYPES[port.type]
        return cls(port.name, dtype, found, height, width, dtype is np.uint8 or found == "HWC")

    def laid_out(self, pixels: NDArray[np.float32]) -> NDArray[Any]:
        """Pixels [H,W,3] in the graph's order and type."""
        order = ["HWC".index(axis) for axis in self.axes if axis != "N"]
        arranged = pixels.transpose(order).astype(self.dtype)
        return arranged[None] if "N" in self.axes else arranged


class Sam:
    """A segmenter: `sam(image, cue)`. It keeps the features of the last picture, so more cues of it cost little.

    Threads take turns.
    """

    def __init__(self, encoder: str | Path, decoder: str | Path, threads: int = 0) -> None:
        """Load both graphs; `GarBackendError` where one is missing, damaged or of another kind.

        threads: processor threads, 0 for all cores.
        """
        self._turn = threading.Lock()
        self._encoder, self._decoder = _session(encoder, threads), _session(decoder, threads)
        inputs = self._encoder.get_inputs()
        pixels = _Pixels.of(inputs[0]) if len(inputs) == 1 else None
        if pixels is None:
            raise GarBackendError(f"{encoder}: not a SAM image encoder; it must take one picture [1,3,{SIDE},{SIDE}]")
        self._pixels = pixels
        self._takes = {one.name: one for one in self._decoder.get_inputs()}
        self._outputs = _chosen_outputs(decoder, self._decoder, self._takes)
        self._features = [name for name in self._takes if name not in (*PROMPT, *OPTIONAL)]
        self._squeezed = any(name.startswith(_HIGH_RESOLUTION) for name in self._features)
        given = [one.name for one in self._encoder.get_outputs()]
        lacking = [name for name in self._features if name not in given]
        if lacking and not len(self._features) == len(given) == 1:
            raise GarBackendError(
                f"{encoder}: does not give {', '.join(lacking)}, which {decoder} takes; export both alike"
            )
        self._given = given if lacking else self._features
        self._last: tuple[NDArray[np.uint8], dict[str, NDArray[Any]]] | None = None

    def __call__(self, image: NDArray[np.uint8], cue: Cue) -> Mask:
        """The region of an RGB picture [H,W,3] that the cue means, as bool [H,W]; `GarMaskError` where none is seen."""
        with self._turn:
            return self._mask(image, cue)

    def _mask(self, image: NDArray[np.uint8], cue: Cue) -> Mask:
        height, width = image.shape[:2]
        marks = cue.marks(width, height)
        if self._last is None or not np.array_equal(self._last[0], image):  # not `is`: cameras refill one buffer
            self._last = image.copy(), self._embed(image)
        features = self._last[1]
        points, labels = _prompt(marks)
        size = self._scaled(width, height)
        inputs: dict[str, NDArray[Any]] = {
            **features,
            "point_coords": (points * np.divide(size, (width, height)))[None],
            "point_labels": labels[None],
            "has_mask_input": np.zeros(1),
            "orig_im_size": np.array([height, width]),
        }
        if "mask_input" in self._takes:
            inputs["mask_input"] = np.zeros(self._mask_shape(features))
        fed: dict[str, NDArray[Any]] = {
            name: inputs[name].astype(_TYPES[port.type], copy=False) for name, port in self._takes.items()
        }
        masks, scores = _run(self._decoder, self._outputs, fed)
        if masks.ndim != 4 or scores.ndim != 2 or masks.shape[1] != scores.shape[1]:
            raise GarBackendError(f"the SAM decoder made no masks with scores but {masks.shape} and {scores.shape}")
        mask = self._at_size(masks[0, int(np.argmax(scores[0]))].astype(np.float32), size, width, height)
        if not mask.any():
            raise GarMaskError(f"the SAM decoder sees no region at {cue}; give another box or more points")
        return mask

    def _embed(self, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The features of a picture, by the names that the decoder has for them."""
        height, width = image.shape[:2]
        size = self._scaled(width, height)
        pixels = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR), np.float32)
        if not self._pixels.raw:
            pixels = ((pixels - MEAN) / DEVIATION).astype(np.float32)
        padded = np.zeros((self._pixels.height, self._pixels.width, _COLOURS), np.float32)
        padded[: size[1], : size[0]] = pixels
        found = _run(self._encoder, self._given, {self._pixels.name: self._pixels.laid_out(padded)})
        return dict(zip(self._features, found, strict=True))

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture in the encoder's."""
        if self._squeezed:
            return self._pixels.width, self._pixels.height
        scale = min(self._pixels.width / width, self._pixels.height / height)
        return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))

    def _mask_shape(self, features: dict[str, NDArray[Any]]) -> tuple[int, ...]:
        """Of the mask that could be given: as declared, else four times the features'."""
        declared = self._takes["mask_input"].shape
        if all(isinstance(side, int) for side in declared):
            return tuple(declared)
        rows, columns = next(features[name] for name in FEATURES if name in features).shape[-2:]
        return 1, 1, 4 * rows, 4 * columns

    def _at_size(self, logits: NDArray[np.float32], size: tuple[int, int], width: int, height: int) -> Mask:
        """The mask of the picture: of the picture's size as it is, else of the encoder's picture, padding cut off."""
        import cv2

        if logits.shape != (height, width) or self._outputs[0] == MASKS[0]:
            whole = cv2.resize(logits, (self._pixels.width, self._pixels.height), interpolation=cv2.INTER_LINEAR)
            part = np.ascontiguousarray(whole[: size[1], : size[0]])
            logits = np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        return logits > 0


def _chosen_outputs(path: str | Path, decoder: Session, takes: dict[str, Any]) -> list[str]:
    """A mask and a score that a decoder gives; `GarBackendError` for a graph that is no mask decoder."""
    gives = {one.name for one in decoder.get_outputs()}
    missing = [name for name in PROMPT if name not in takes]
    if not any(name in takes for name in FEATURES):
        missing.insert(0, FEATURES[0])
    chosen = [next((name for name in names if name in gives), None) for names in (MASKS, SCORES)]
    missing += [
        names[-1 if names is MASKS else 0] for names, one in zip((MASKS, SCORES), chosen, strict=True) if one is None
    ]
    if missing:
        raise GarBackendError(
            f"{path}: not a SAM mask decoder, it lacks {', '.join(missing)}; "
            "export it with the segment-anything repository's export_onnx_model.py"
        )
    known = (*FEATURES, *PROMPT, *OPTIONAL)
    for name, port in takes.items():
        if (name not in known and not name.startswith(_HIGH_RESOLUTION)) or port.type not in _TYPES:
            raise GarBackendError(f"{path}: takes {name} ({port.type}), which no SAM mask decoder known here does")
    return [name for name in chosen if name is not None]


def _prompt(marks: Marks) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Points [N,2] in the picture's pixels and their labels [N]; a padding point says that there is no box."""
    inside, outside = spaced(marks.inside, MOST_POINTS), spaced(marks.outside, MOST_POINTS)
    labels = [INSIDE] * len(inside) + [OUTSIDE] * len(outside)
    corners, kinds = np.zeros((1, 2)), [PADDING]
    if marks.bounds is not None:
        corners, kinds = np.reshape(marks.bounds, (2, 2)).astype(float), [UPPER_LEFT, LOWER_RIGHT]
    return np.concatenate([inside + 0.5, outside + 0.5, corners]), np.array(labels + kinds, np.float32)


def _session(path: str | Path, threads: int) -> onnxruntime.InferenceSession:
    ort = import_onnxruntime()
    if not Path(path).is_file():
        raise GarBackendError(f"{path}: no such SAM graph; give an ONNX file")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS_ONLY
    keep_exact(options, products_saturate(ort))  # Segment-Anything graphs come quantised, too
    try:
        return ort.InferenceSession(str(path), options, providers=[CPU])
    except Exception as problem:  # onnxruntime raises types of its own for each kind of damage
        raise GarBackendError(f"{path}: cannot be loaded ({' '.join(str(problem).split())})") from None


def _run(session: Session, outputs: Sequence[str], inputs: dict[str, Any]) -> list[Any]:
    try:
        found: list[Any] = session.run(outputs, inputs)
    except Exception as problem:
        raise GarBackendError(f"the SAM graph failed: {' '.join(str(problem).split())}") from None
    return found
