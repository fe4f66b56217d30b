"""A region of a video, given by a mask image for each frame."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.images.mask_images import load_labels, load_mask
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.video.capture import TimedFrame

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class FrameMasks:
    """A folder of masks by frame number, 0 being the first frame. label: of label images, the instance that is meant.

    Drawn like any region, it is the mask of `frame`.
    """

    folder: Path
    files: Mapping[int, Path]
    label: int | None = None
    frame: int = 0

    @classmethod
    def of(cls, folder: Path, label: int | None = None) -> FrameMasks:
        """The masks of a folder; the last digits of a file's name are its frame's number, as in `frame_0012.png`.

        `GarMaskError` where there are none, or two for one frame.
        """
        if not folder.is_dir():
            raise GarMaskError(f"{folder}: no such folder of masks")
        pictures = Image.registered_extensions()
        files: dict[int, Path] = {}
        for path in sorted(folder.iterdir()):
            digits = _DIGITS.findall(path.stem)
            if not digits or path.suffix.lower() not in pictures:
                continue
            number = int(digits[-1])
            if number in files:
                raise GarMaskError(f"{folder}: {files[number].name} and {path.name} are both of frame {number}")
            files[number] = path
        if not files:
            raise GarMaskError(f"{folder}: holds no picture with a frame's number in its name, such as 0000.png")
        return cls(folder, files, label)

    def draw(self, width: int, height: int) -> Mask:
        """The mask of `frame`, as `of_frame`; it has its own size."""
        return self._read(self.frame)

    def of_frame(self, frame: TimedFrame) -> Mask:
        """The mask at its own size, all false where the frame does not show the region.

        `GarMaskError` where the frame has no file, or its file is no mask.
        """
        return self._read(frame.number)

    def _read(self, number: int) -> Mask:
        path = self.files.get(number)
        if path is None:
            raise GarMaskError(
                f"{self.folder}: no mask of frame {number}; an empty one says that the region is not there, and "
                "--every N leaves frames out"
            )
        return load_mask(path) if self.label is None else load_labels(path) == self.label
