"""What a worker must know: which model, which rows, where they go. It travels to other machines."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gar_edge.runtime.bundle.manifest import FILE
from gar_edge.runtime.bundle.shipped import SHIPPED, usual_bundle
from gar_edge.runtime.errors import GarBundleError
from gar_edge.runtime.files.addresses import beside
from gar_edge.runtime.gar import BATCH, Gar
from gar_edge.runtime.jobs.job import JobSettings
from gar_edge.runtime.jobs.prepare import Preparation
from gar_edge.runtime.label.parquet_input import Cells
from gar_edge.runtime.label.settings import Settings
from gar_edge.runtime.regions.find import box_mask
from gar_edge.runtime.regions.segmenters.grabcut import grabcut

_CACHE = 256 << 20  # bytes: a picture's regions follow each other, and are not come back to


def bundle_digest(folder: Path) -> str:
    """Of a bundle's manifest, which has the digests of its files; `GarBundleError` where there is none."""
    try:
        return hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    except OSError as error:
        raise GarBundleError(f"{folder / FILE}: cannot be read ({error.strerror})") from None


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Loads the model on the machine that it is called on.

    bundle: the same folder on every machine; None: the gar-nano that comes with the package. digest: which it must be.
    """

    bundle: Path | None
    digest: str
    backend: str = "auto"
    decoder: str = "standard"
    threads: int = 1
    batch: int = BATCH

    @classmethod
    def of(cls, bundle: Path | None, *, backend: str, decoder: str, threads: int, batch: int) -> Loader:
        """For the bundle that is named on this machine, or the usual one."""
        folder = (bundle or usual_bundle()).resolve()
        return cls(
            bundle=None if folder == SHIPPED.resolve() else folder,
            digest=bundle_digest(folder),
            backend=backend,
            decoder=decoder,
            threads=threads,
            batch=batch,
        )

    @property
    def folder(self) -> Path:
        """Where the bundle lies on this machine."""
        return self.bundle or SHIPPED

    def __call__(self) -> Gar:
        """`GarBundleError` where this machine has another bundle, or none; `GarBackendError`."""
        if not self.folder.is_dir():
            raise GarBundleError(f"{self.folder}: not on {platform.node()}; put the bundle there on every machine")
        digest = bundle_digest(self.folder)
        if digest != self.digest:
            raise GarBundleError(
                f"{self.folder}: on {platform.node()} it is {digest[:12]}, where it was asked {self.digest[:12]}; "
                "put the same bundle on every machine"
            )
        return Gar.load(
            self.folder,
            backend=self.backend,
            decoder=self.decoder,
            threads=self.threads,
            batch=self.batch,
            cache_bytes=_CACHE,
        )


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a run does. load: makes the model. folder: what pictures are named relative to. output: where rows go."""

    load: Callable[[], Gar]
    settings: Settings
    folder: Path
    output: Path

    def job_settings(self) -> JobSettings:
        """As `jobs` takes them."""
        segment = box_mask if self.settings.box_as_mask else grabcut
        return JobSettings(self.folder, self.settings.options(), segment, self.settings.max_tiles)

    def preparation(self, gar: Gar) -> Preparation:
        """Makes requests of rows, for one part: its pictures are read in their order."""
        cells = Cells(self.folder)
        locate = partial(beside, self.folder)

        def find(name: str) -> Path | str | bytes:
            held = cells(name)
            return locate(name) if held is None else held

        return Preparation(gar, self.job_settings(), find=find)
