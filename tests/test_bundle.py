"""A bundle is verified when opened: what is missing, altered or unknown is named in one line, and nothing twice."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gar_edge.runtime import bundle as bundles
from gar_edge.runtime.bundle import Bundle, sha256
from gar_edge.runtime.errors import GarBundleError
from gar_edge.runtime.manifest import SCHEMA, Manifest
from gar_edge.runtime.paths import HOME

FILES = ("encoder.onnx", "encoder.onnx.data", "roi_replay.onnx", "decoder.onnx", "decoder.onnx.data",
         "token_table.bin", "tokenizer.json", "chat_template.jinja")  # fmt: skip


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of a good bundle that nobody has opened yet, to be spoilt."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose digests are computed from now on."""
    names: list[str] = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return sha256(path)

    monkeypatch.setattr(bundles, "sha256", noted)
    return names


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "gar.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def flip_byte(path: Path) -> None:
    """Alter one byte in the middle; the size stays."""
    time.sleep(0.02)  # file times tick in milliseconds
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(GarBundleError) as error:
        Bundle.open(folder)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(str(folder))
    for part in parts:
        assert part in text


# A good one


def test_a_good_bundle_opens(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.folder == folder
    assert sorted(bundle.manifest.graphs) == ["decoder", "encoder", "roi_replay"]


def test_a_path_may_be_text(folder: Path) -> None:
    assert Bundle.open(str(folder)).folder == folder


def test_every_file_but_the_manifest_is_listed(folder: Path) -> None:
    on_disk = {path.name for path in folder.iterdir()} - {"gar.json"}
    assert set(Bundle.open(folder).manifest.files) == on_disk == set(FILES)


def test_the_digest_is_sha_256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # the standard's first example
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_token_table_is_read_by_row(folder: Path) -> None:
    bundle = Bundle.open(folder)
    shape = bundle.manifest.dimensions
    rows = np.frombuffer((folder / "token_table.bin").read_bytes(), "<f4").reshape(shape.vocab, shape.hidden)
    np.testing.assert_array_equal(bundle.token_table[7], rows[7])
    assert not bundle.token_table.flags.writeable


def test_a_manifest_survives_json(folder: Path) -> None:
    manifest = Bundle.open(folder).manifest
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def test_fields_that_this_version_does_not_know_are_ignored(folder: Path) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["mood"] = "good"
        manifest["prompt"]["mood"] = "good"

    edit_manifest(folder, edit)
    Bundle.open(folder)


# Files missing or altered


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, f"/{name}: missing", "export it again")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named_with_both_sizes(folder: Path, name: str) -> None:
    size = (folder / name).stat().st_size
    os.truncate(folder / name, size - 1)
    refused(folder, f"/{name}: {size - 1} bytes, expected {size}", "truncated", "export the bundle again")


@pytest.mark.parametrize("name", FILES)
def test_an_altered_byte_is_found(folder: Path, name: str) -> None:
    before = sha256(folder / name)
    flip_byte(folder / name)
    after = sha256(folder / name)
    refused(folder, f"/{name}: SHA-256 {after[:12]}", f"expected {before[:12]}", "altered", "export the bundle again")


def test_a_folder_in_a_files_place_is_refused(folder: Path) -> None:
    (folder / "decoder.onnx").unlink()
    (folder / "decoder.onnx").mkdir()
    size = (folder / "decoder.onnx").stat().st_size
    edit_manifest(folder, lambda manifest: manifest["files"]["decoder.onnx"].update(bytes=size))
    refused(folder, "/decoder.onnx: cannot be read")


@pytest.mark.parametrize("name", FILES)
def test_a_file_without_a_digest_is_refused(folder: Path, name: str) -> None:
    edit_manifest(folder, lambda manifest: manifest["files"].pop(name))
    refused(folder, f"/gar.json: no SHA-256 of {name}")


# Digests computed before


def test_the_first_opening_hashes_every_file_once(folder: Path, hashed: list[str]) -> None:
    Bundle.open(folder)
    assert sorted(hashed) == sorted(FILES)


def test_the_second_opening_hashes_nothing(folder: Path, hashed: list[str]) -> None:
    Bundle.open(folder)
    hashed.clear()
    Bundle.open(folder)
    assert hashed == []


def test_a_bundle_just_exported_is_not_hashed_again(tiny_bundle: Path, hashed: list[str]) -> None:
    Bundle.open(tiny_bundle)
    assert hashed == []


def test_only_the_file_that_was_touched_is_hashed_again(folder: Path, hashed: list[str]) -> None:
    Bundle.open(folder)
    hashed.clear()
    os.utime(folder / "decoder.onnx", (1, 1))
    Bundle.open(folder)
    assert hashed == ["decoder.onnx"]


def test_a_byte_altered_after_an_opening_is_found(folder: Path) -> None:
    Bundle.open(folder)
    flip_byte(folder / "decoder.onnx.data")
    refused(folder, "/decoder.onnx.data: SHA-256")


def test_a_byte_altered_after_an_opening_is_found_though_the_time_was_put_back(folder: Path) -> None:
    Bundle.open(folder)
    path = folder / "decoder.onnx.data"
    status = path.stat()
    flip_byte(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    refused(folder, "/decoder.onnx.data: SHA-256")


def test_an_altered_file_is_refused_every_time(folder: Path) -> None:
    flip_byte(folder / "decoder.onnx.data")
    refused(folder, "/decoder.onnx.data: SHA-256")
    refused(folder, "/decoder.onnx.data: SHA-256")


def test_a_file_swapped_for_another_of_its_size_is_found(folder: Path) -> None:
    Bundle.open(folder)
    path = folder / "token_table.bin"
    status = path.stat()
    other = folder.parent / "other"
    other.write_bytes(bytes(status.st_size))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    refused(folder, "/token_table.bin: SHA-256")


def test_another_bundle_put_in_the_same_place_is_hashed(folder: Path, hashed: list[str]) -> None:
    Bundle.open(folder)
    moved = folder.with_name("moved")
    folder.rename(moved)
    shutil.copytree(moved, folder)
    hashed.clear()
    Bundle.open(folder)
    assert sorted(hashed) == sorted(FILES)


@pytest.mark.parametrize("text", ["{", "[]", '{"decoder.onnx": 3}', "3"])
def test_damaged_notes_of_digests_only_cost_time(
    folder: Path, tmp_path: Path, hashed: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    Bundle.open(folder)
    (notes,) = (tmp_path / "home" / "verified").iterdir()
    notes.write_text(text)
    hashed.clear()
    Bundle.open(folder)
    assert sorted(hashed) == sorted(FILES)


def test_a_home_that_cannot_be_written_to_does_not_hurt(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(HOME, str(tmp_path / "file" / "home"))  # no folder can be made in a file, even by root
    Bundle.open(folder)
    Bundle.open(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_home_does_not_hurt(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir(mode=0o500)
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    Bundle.open(folder)
    assert list((tmp_path / "home").iterdir()) == []


# Not a bundle, or not one of ours


def test_a_missing_folder_is_named_with_the_remedy(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no such bundle", "gar-export", "--model")


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path, "no gar.json", "not a bundle")


def test_a_file_is_no_bundle(folder: Path) -> None:
    refused(folder / "gar.json", "no such bundle")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"<html>\n</html>"])
def test_a_manifest_that_is_not_json_is_named(folder: Path, data: bytes) -> None:
    (folder / "gar.json").write_bytes(data)
    refused(folder, "/gar.json: not readable as JSON", "export the bundle again")


def test_a_newer_schema_asks_for_a_newer_gar_edge(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(schema=SCHEMA + 1))
    refused(folder, "/gar.json", f"schema {SCHEMA + 1} is newer", "upgrade gar-edge")


@pytest.mark.parametrize("schema", [0, -1, "1", None, 1.5, [1]])
def test_an_older_or_odd_schema_asks_for_another_export(folder: Path, schema: object) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(schema=schema))
    refused(folder, "/gar.json", f"schema {schema!r}, expected {SCHEMA}", "export the bundle again")


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}"])
def test_json_without_a_schema_is_refused(folder: Path, text: str) -> None:
    (folder / "gar.json").write_text(text)
    refused(folder, "/gar.json", "schema None")


@pytest.mark.parametrize(
    "path",
    ["name", "graphs", "files", "prompt.regions", "preprocess.tile", "dimensions.hidden", "graphs.encoder.files",
     "replay.spatial_scale", "files.decoder.onnx.sha256"],
)  # fmt: skip
def test_a_missing_field_is_named(folder: Path, path: str) -> None:
    where, _, field = path.rpartition(".")
    edit_manifest(folder, lambda manifest: parent(manifest, path).pop(field))
    refused(folder, f"gar.json{'.' if where else ''}{where}: no field '{field}'", "export the bundle again")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("name", 3, "expected str, found int"),
        ("preprocess", [], "expected an object, found list"),
        ("preprocess.tile", "448", "expected int, found str"),
        ("preprocess.tile", 448.0, "expected int, found float"),
        ("preprocess.tile", True, "expected int, found bool"),
        ("preprocess.rescale", "x", "expected float, found str"),
        ("preprocess.rescale", False, "expected float, found bool"),
        ("prompt.replay_tokens", 5, "expected a list, found int"),
        ("graphs", [], "expected an object, found list"),
        ("graphs.encoder", None, "expected an object, found NoneType"),
        ("source.revision", 5, "expected str, found int"),
        ("validation", [], "expected an object, found list"),
        ("files.decoder.onnx.bytes", "1", "expected int, found str"),
    ],
)
def test_a_field_of_a_wrong_type_is_named(folder: Path, path: str, value: object, expected: str) -> None:
    edit_manifest(folder, lambda manifest: parent(manifest, path).update({path.rpartition(".")[2]: value}))
    refused(folder, f"gar.json.{path}: {expected}", "export the bundle again")


def test_a_list_items_wrong_type_is_named_with_its_place(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest["prompt"].update(replay_tokens=[1, "x"]))
    refused(folder, "gar.json.prompt.replay_tokens[1]: expected int, found str")


@pytest.mark.parametrize(("path", "value"), [("graphs", {}), ("dimensions.hidden", 0)])
def test_a_manifest_that_cannot_be_run_is_refused(folder: Path, path: str, value: object) -> None:
    manifest = json.loads((folder / "gar.json").read_text())
    *parents, name = path.split(".")
    target = manifest
    for parent in parents:
        target = target[parent]
    target[name] = value
    (folder / "gar.json").write_text(json.dumps(manifest))
    with pytest.raises(GarBundleError, match=rf"gar\.json\.{path}"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("field", "pairs", "expected"),
    [
        ("appends", [], "expected an object, found list"),
        ("appends", {"logits": 3}, "expected str, found int"),
        ("appends", {"logits": "past"}, "logits -> past: no such output and input"),
        ("appends", {"key_cache_0": "logits"}, "key_cache_0 -> logits: no such output and input"),
        ("appends", {"logits": "key_cache_0"}, "key_cache_0: no such output and input, or paired already"),
        ("aliases", {"logits": "key_cache_0", "key_cache_0_out": "key_cache_0"}, "or paired already"),
        ("aliases", {"nothing": "key_cache_0"}, "nothing -> key_cache_0: no such output"),
    ],
)
@pytest.mark.parametrize("form", ["graphs", "engine_graphs.cpu"])
def test_pairs_of_ports_are_checked(folder: Path, form: str, field: str, pairs: object, expected: str) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["engine_graphs"] = {"cpu": {"decoder": dict(manifest["graphs"]["decoder"])}}
        graphs = manifest["graphs"] if form == "graphs" else manifest["engine_graphs"]["cpu"]
        graphs["decoder"][field] = pairs

    edit_manifest(folder, edit)
    refused(folder, f"gar.json.{form}.decoder.{field}", expected, "export the bundle again")


def test_a_whole_number_is_a_float(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest["replay"].update(spatial_scale=1))
    assert Bundle.open(folder).manifest.replay.spatial_scale == 1


def parent(manifest: dict[str, Any], path: str) -> dict[str, Any]:
    """The object that holds the last field of a dotted path; names of files may hold dots themselves."""
    names = path.replace("decoder.onnx", "decoder/onnx").split(".")[:-1]
    for name in names:
        manifest = manifest[name.replace("/", ".")]
    return manifest
