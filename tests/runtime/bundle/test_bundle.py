"""A bundle is verified when opened: what is missing or altered is named in one line, and nothing is hashed twice."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.needs import ANOTHER_USER
from helpers.shapes import SMALLEST
from helpers.spoilt import edit_json, refused_bundle

from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.models.standin import random_checkpoint_of
from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.files import digests as bundles
from gar_edge.runtime.files.digests import sha256
from gar_edge.runtime.files.paths import HOME

FILES = ("encoder.onnx", "encoder.onnx.data", "roi_replay.onnx", "decoder.onnx", "decoder.onnx.data",
         "token_table.bin", "tokenizer.json", "chat_template.jinja")  # fmt: skip


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose digests are computed from now on."""
    names: list[str] = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return sha256(path)

    monkeypatch.setattr(bundles, "sha256", noted)
    return names


def flip_byte(path: Path) -> None:
    """Alter one byte in the middle; the size stays."""
    time.sleep(0.02)  # file times tick in milliseconds
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))


# A good one


def test_a_good_bundle_opens(own_bundle: Path) -> None:
    bundle = Bundle.open(own_bundle)
    assert bundle.folder == own_bundle
    assert sorted(bundle.manifest.graphs) == ["decoder", "encoder", "roi_replay"]


def test_a_path_may_be_text(own_bundle: Path) -> None:
    assert Bundle.open(str(own_bundle)).folder == own_bundle


def test_every_file_but_the_manifest_is_listed(own_bundle: Path) -> None:
    on_disk = {path.name for path in own_bundle.iterdir()} - {"gar.json"}
    assert set(Bundle.open(own_bundle).manifest.files) == on_disk == set(FILES)


def test_the_digest_is_sha_256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # the standard's first example
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_token_table_is_read_by_row(own_bundle: Path) -> None:
    bundle = Bundle.open(own_bundle)
    shape = bundle.manifest.dimensions
    rows = np.frombuffer((own_bundle / "token_table.bin").read_bytes(), "<f4").reshape(shape.vocab, shape.hidden)
    np.testing.assert_array_equal(bundle.token_table[7], rows[7])
    assert not bundle.token_table.flags.writeable


# Files missing or altered


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(own_bundle: Path, name: str) -> None:
    (own_bundle / name).unlink()
    refused_bundle(own_bundle, f"/{name}: missing", "export it again")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named_with_both_sizes(own_bundle: Path, name: str) -> None:
    size = (own_bundle / name).stat().st_size
    os.truncate(own_bundle / name, size - 1)
    refused_bundle(own_bundle, f"/{name}: {size - 1} bytes, expected {size}", "truncated", "export the bundle again")


@pytest.mark.parametrize("name", FILES)
def test_an_altered_byte_is_found(own_bundle: Path, name: str) -> None:
    before = sha256(own_bundle / name)
    flip_byte(own_bundle / name)
    after = sha256(own_bundle / name)
    refused_bundle(
        own_bundle, f"/{name}: SHA-256 {after[:12]}", f"expected {before[:12]}", "altered", "export the bundle again"
    )


def test_a_folder_in_a_files_place_is_refused(own_bundle: Path) -> None:
    (own_bundle / "decoder.onnx").unlink()
    (own_bundle / "decoder.onnx").mkdir()
    size = (own_bundle / "decoder.onnx").stat().st_size
    edit_json(own_bundle / "gar.json", lambda manifest: manifest["files"]["decoder.onnx"].update(bytes=size))
    refused_bundle(own_bundle, "/decoder.onnx: cannot be read")


@pytest.mark.parametrize("name", FILES)
def test_a_file_without_a_digest_is_refused(own_bundle: Path, name: str) -> None:
    edit_json(own_bundle / "gar.json", lambda manifest: manifest["files"].pop(name))
    refused_bundle(own_bundle, f"/gar.json: no SHA-256 of {name}")


# Digests computed before


def test_the_first_opening_hashes_every_file_once(own_bundle: Path, hashed: list[str]) -> None:
    Bundle.open(own_bundle)
    assert sorted(hashed) == sorted(FILES)


def test_the_second_opening_hashes_nothing(own_bundle: Path, hashed: list[str]) -> None:
    Bundle.open(own_bundle)
    hashed.clear()
    Bundle.open(own_bundle)
    assert hashed == []


def test_a_bundle_just_exported_is_not_hashed_again(tmp_path: Path, hashed: list[str]) -> None:
    options = ExportOptions(Precision.FP32, validate=False)
    export_bundle(random_checkpoint_of(SMALLEST, "smallest"), tmp_path / "new", options, Silent())
    hashed.clear()
    Bundle.open(tmp_path / "new")
    assert hashed == []


def test_only_the_file_that_was_touched_is_hashed_again(own_bundle: Path, hashed: list[str]) -> None:
    Bundle.open(own_bundle)
    hashed.clear()
    os.utime(own_bundle / "decoder.onnx", (1, 1))
    Bundle.open(own_bundle)
    assert hashed == ["decoder.onnx"]


def test_a_byte_altered_after_an_opening_is_found(own_bundle: Path) -> None:
    Bundle.open(own_bundle)
    flip_byte(own_bundle / "decoder.onnx.data")
    refused_bundle(own_bundle, "/decoder.onnx.data: SHA-256")


def test_a_byte_altered_after_an_opening_is_found_though_the_time_was_put_back(own_bundle: Path) -> None:
    Bundle.open(own_bundle)
    path = own_bundle / "decoder.onnx.data"
    status = path.stat()
    flip_byte(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    refused_bundle(own_bundle, "/decoder.onnx.data: SHA-256")


def test_an_altered_file_is_refused_every_time(own_bundle: Path) -> None:
    flip_byte(own_bundle / "decoder.onnx.data")
    refused_bundle(own_bundle, "/decoder.onnx.data: SHA-256")
    refused_bundle(own_bundle, "/decoder.onnx.data: SHA-256")


def test_a_file_swapped_for_another_of_its_size_is_found(own_bundle: Path) -> None:
    Bundle.open(own_bundle)
    path = own_bundle / "token_table.bin"
    status = path.stat()
    other = own_bundle.parent / "other"
    other.write_bytes(bytes(status.st_size))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    refused_bundle(own_bundle, "/token_table.bin: SHA-256")


def test_another_bundle_put_in_the_same_place_is_hashed(own_bundle: Path, hashed: list[str]) -> None:
    Bundle.open(own_bundle)
    moved = own_bundle.with_name("moved")
    own_bundle.rename(moved)
    shutil.copytree(moved, own_bundle)
    hashed.clear()
    Bundle.open(own_bundle)
    assert sorted(hashed) == sorted(FILES)


@pytest.mark.parametrize("text", ["{", "[]", '{"decoder.onnx": 3}', "3"])
def test_damaged_notes_of_digests_only_cost_time(
    own_bundle: Path, tmp_path: Path, hashed: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    Bundle.open(own_bundle)
    (notes,) = (tmp_path / "home" / "verified").iterdir()
    notes.write_text(text)
    hashed.clear()
    Bundle.open(own_bundle)
    assert sorted(hashed) == sorted(FILES)


def test_a_home_that_cannot_be_written_to_does_not_hurt(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(HOME, str(tmp_path / "file" / "home"))  # no folder can be made in a file, even by root
    Bundle.open(own_bundle)
    Bundle.open(own_bundle)


@pytest.mark.skipif(os.geteuid() == 0, reason=ANOTHER_USER)
def test_a_read_only_home_does_not_hurt(own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir(mode=0o500)
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    Bundle.open(own_bundle)
    assert list((tmp_path / "home").iterdir()) == []


# Not a bundle, or not one of ours


def test_a_missing_folder_is_named_with_the_remedy(tmp_path: Path) -> None:
    refused_bundle(tmp_path / "none", "no such bundle", "gar-export", "--model")


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    refused_bundle(tmp_path, "no gar.json", "not a bundle")


def test_a_file_is_no_bundle(own_bundle: Path) -> None:
    refused_bundle(own_bundle / "gar.json", "no such bundle")
