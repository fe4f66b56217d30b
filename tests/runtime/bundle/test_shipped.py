"""The bundle in the package: taken where there is no other, checked like any, never written to."""

import os
import shutil
from pathlib import Path

import pytest
from helpers.needs import ANOTHER_USER

from gar_edge.runtime import Gar, GarBackendError, GarBundleError
from gar_edge.runtime.bundle import shipped
from gar_edge.runtime.bundle.shipped import SHIPPED, scratch_folder, usual_bundle
from gar_edge.runtime.engines.tensorrt.store import Store, writable
from gar_edge.runtime.files.paths import HOME, remember_bundle


@pytest.fixture(autouse=True)
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has exported nothing."""
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    return tmp_path / "home"


def test_it_is_taken_until_another_was_exported(tiny_bundle: Path) -> None:
    assert usual_bundle() == SHIPPED
    remember_bundle(tiny_bundle)
    assert usual_bundle() == tiny_bundle


def test_load_needs_no_export_and_leaves_the_package_as_it_is() -> None:
    def state() -> dict[str, int]:
        return {file.name: file.stat().st_mtime_ns for file in SHIPPED.iterdir()}

    before = state()
    with Gar.load(threads=1) as gar:
        assert gar.manifest.source.name == "gar-nano"
    assert state() == before


def test_it_is_checked_like_any_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(SHIPPED, tmp_path / "installed")
    content = bytearray((copy / "encoder.onnx.data").read_bytes())
    content[4096] ^= 1
    (copy / "encoder.onnx.data").write_bytes(content)
    monkeypatch.setattr(shipped, "SHIPPED", copy)
    with pytest.raises(GarBundleError, match=r"encoder\.onnx\.data: SHA-256 .* altered"):
        Gar.load()


def test_engines_of_it_are_kept_in_the_per_user_directory(fresh_home: Path, tiny_bundle: Path) -> None:
    assert Store(SHIPPED).folder.is_relative_to(fresh_home)
    assert Store(SHIPPED / ".." / SHIPPED.name).folder.is_relative_to(fresh_home)
    assert Store(tiny_bundle).folder == tiny_bundle / "engines"


@pytest.mark.skipif(os.geteuid() == 0, reason=ANOTHER_USER)
def test_a_home_that_cannot_be_written_to_is_one_line(fresh_home: Path) -> None:
    fresh_home.mkdir(mode=0o500)
    with pytest.raises(GarBackendError, match="engines cannot be written"), writable(scratch_folder(SHIPPED)):
        pass


def test_a_home_that_is_no_folder_is_one_line(fresh_home: Path) -> None:
    fresh_home.write_text("a file")
    with pytest.raises(GarBackendError, match="engines cannot be written"), writable(Store(SHIPPED).folder):
        pass
