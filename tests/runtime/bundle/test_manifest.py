"""`gar.json`: what is read, what is ignored, and one line for whatever is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.spoilt import edit_json, refused_bundle

from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.bundle.manifest import SCHEMA, Manifest
from gar_edge.runtime.errors import GarBundleError


def test_a_manifest_survives_json(own_bundle: Path) -> None:
    manifest = Bundle.open(own_bundle).manifest
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def test_fields_that_this_version_does_not_know_are_ignored(own_bundle: Path) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["mood"] = "good"
        manifest["prompt"]["mood"] = "good"

    edit_json(own_bundle / "gar.json", edit)
    Bundle.open(own_bundle)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"<html>\n</html>"])
def test_a_manifest_that_is_not_json_is_named(own_bundle: Path, data: bytes) -> None:
    (own_bundle / "gar.json").write_bytes(data)
    refused_bundle(own_bundle, "/gar.json: not readable as JSON", "export the bundle again")


def test_a_newer_schema_asks_for_a_newer_gar_edge(own_bundle: Path) -> None:
    edit_json(own_bundle / "gar.json", lambda manifest: manifest.update(schema=SCHEMA + 1))
    refused_bundle(own_bundle, "/gar.json", f"schema {SCHEMA + 1} is newer", "upgrade gar-edge")


@pytest.mark.parametrize("schema", [0, -1, "1", None, 1.5, [1]])
def test_an_older_or_odd_schema_asks_for_another_export(own_bundle: Path, schema: object) -> None:
    edit_json(own_bundle / "gar.json", lambda manifest: manifest.update(schema=schema))
    refused_bundle(own_bundle, "/gar.json", f"schema {schema!r}, expected {SCHEMA}", "export the bundle again")


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}"])
def test_json_without_a_schema_is_refused(own_bundle: Path, text: str) -> None:
    (own_bundle / "gar.json").write_text(text)
    refused_bundle(own_bundle, "/gar.json", "schema None")


@pytest.mark.parametrize(
    "path",
    ["name", "graphs", "files", "prompt.regions", "preprocess.tile", "dimensions.hidden", "graphs.encoder.files",
     "replay.spatial_scale", "files.decoder.onnx.sha256"],
)  # fmt: skip
def test_a_missing_field_is_named(own_bundle: Path, path: str) -> None:
    where, _, field = path.rpartition(".")
    edit_json(own_bundle / "gar.json", lambda manifest: parent(manifest, path).pop(field))
    refused_bundle(own_bundle, f"gar.json{'.' if where else ''}{where}: no field '{field}'", "export the bundle again")


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
def test_a_field_of_a_wrong_type_is_named(own_bundle: Path, path: str, value: object, expected: str) -> None:
    edit_json(own_bundle / "gar.json", lambda manifest: parent(manifest, path).update({path.rpartition(".")[2]: value}))
    refused_bundle(own_bundle, f"gar.json.{path}: {expected}", "export the bundle again")


def test_a_list_items_wrong_type_is_named_with_its_place(own_bundle: Path) -> None:
    edit_json(own_bundle / "gar.json", lambda manifest: manifest["prompt"].update(replay_tokens=[1, "x"]))
    refused_bundle(own_bundle, "gar.json.prompt.replay_tokens[1]: expected int, found str")


@pytest.mark.parametrize(("path", "value"), [("graphs", {}), ("dimensions.hidden", 0)])
def test_a_manifest_that_cannot_be_run_is_refused(own_bundle: Path, path: str, value: object) -> None:
    manifest = json.loads((own_bundle / "gar.json").read_text())
    *parents, name = path.split(".")
    target = manifest
    for parent in parents:
        target = target[parent]
    target[name] = value
    (own_bundle / "gar.json").write_text(json.dumps(manifest))
    with pytest.raises(GarBundleError, match=rf"gar\.json\.{path}"):
        Bundle.open(own_bundle)


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
def test_pairs_of_ports_are_checked(own_bundle: Path, form: str, field: str, pairs: object, expected: str) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["engine_graphs"] = {"cpu": {"decoder": dict(manifest["graphs"]["decoder"])}}
        graphs = manifest["graphs"] if form == "graphs" else manifest["engine_graphs"]["cpu"]
        graphs["decoder"][field] = pairs

    edit_json(own_bundle / "gar.json", edit)
    refused_bundle(own_bundle, f"gar.json.{form}.decoder.{field}", expected, "export the bundle again")


def test_a_whole_number_is_a_float(own_bundle: Path) -> None:
    edit_json(own_bundle / "gar.json", lambda manifest: manifest["replay"].update(spatial_scale=1))
    assert Bundle.open(own_bundle).manifest.replay.spatial_scale == 1


def parent(manifest: dict[str, Any], path: str) -> dict[str, Any]:
    """The object that holds the last field of a dotted path; names of files may hold dots themselves."""
    names = path.replace("decoder.onnx", "decoder/onnx").split(".")[:-1]
    for name in names:
        manifest = manifest[name.replace("/", ".")]
    return manifest
