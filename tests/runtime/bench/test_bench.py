"""gar-bench: its figures have the meanings that they claim, and its roof is the machine's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner

from gar_edge.export.describe import describe_work
from gar_edge.runtime import Gar
from gar_edge.runtime.bench import roof, soak, stages
from gar_edge.runtime.bench.stages import Contestant, Setting
from gar_edge.runtime.cli import bench as cli

RUN = ["--tiles", "2", "--new-tokens", "3", "--rounds", "1"]


@pytest.fixture(autouse=True)
def small_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of a roof are not what these tests look at; small arrays are quick."""
    for name, size in {"BYTES": 1 << 20, "ROWS": 8, "DEPTH": 64, "COLUMNS": 32, "ROUNDS": 1}.items():
        monkeypatch.setattr(roof, name, size)


def bench(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, [*arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_one_json_object_says_all(tiny_bundle: Path) -> None:
    report = json.loads(bench("-m", str(tiny_bundle), *RUN, "--regions", "1", "--regions", "3", "--json"))
    for stage, figure in (("encode", "tiles_per_s"), ("prefill", "tokens_per_s"), ("decode", "tokens_per_s")):
        assert report[stage][figure] > 0
        assert report[stage]["share_of_roof"] > 0
    assert report["first_token_ms"] > report["encode"]["ms"]
    assert report["load_ms"] > 0
    assert report["peak_rss_bytes"] > 50e6  # an interpreter with NumPy and ONNX Runtime
    assert set(report["regions"]) == {"1", "3"}
    assert set(report["roof"]) == {"read_gb_s", "copy_gb_s", "fp32_gop_s", "int8_gop_s"}
    setting = report["setting"]
    assert (setting["tiles"], setting["grid"], setting["new_tokens"]) == (2, [2, 1], 3)
    assert setting["backend"] == "onnxruntime"
    least, most = report["spread"]["encode.tiles_per_s"]
    assert least <= report["encode"]["tiles_per_s"] <= most
    assert report["machine"]["versions"]["onnxruntime"] == onnxruntime.__version__
    assert report["machine"]["int8_weights_run_as"] in ("int8", "uint8")
    assert isinstance(report["machine"]["kernels"], list)


def test_several_bundles_are_a_list_and_a_table_with_ratios(tiny_bundle: Path, half_nano: Path, tmp_path: Path) -> None:
    both = ("-m", str(tiny_bundle), "-m", str(half_nano), *RUN)
    assert [one["setting"]["precision"] for one in json.loads(bench(*both, "--json"))] == ["fp32", "fp16"]
    plot = tmp_path / "bars.png"
    table = bench(*both, "--plot", str(plot))
    assert "encode" in table
    assert "x" in table
    assert "Kernels: " in table
    with Image.open(plot) as drawn:
        assert drawn.width >= 600
        assert len(set(np.asarray(drawn.convert("RGB")).reshape(-1, 3).max(axis=1).tolist())) > 3


@pytest.mark.parametrize("tiles", [1, 3, 4, 6])
def test_the_picture_has_the_tiles_that_were_asked_for(half_nano: Path, tiles: int) -> None:
    contestant = Contestant(half_nano, Setting(tiles, (1,), 2, "onnxruntime", "standard", 1), lambda step: None)
    columns, rows = contestant.grid
    assert columns * rows == tiles


def test_answers_are_as_long_as_asked_whatever_they_say(half_nano: Path) -> None:
    """gar-nano ends its answers after some thirty tokens."""
    contestant = Contestant(half_nano, Setting(2, (1, 2), 70, "onnxruntime", "standard", 1), lambda step: None)
    lengths = []
    add = contestant._add_stages
    contestant._add_stages = lambda answer: lengths.append(len(answer.tokens)) or add(answer)  # type: ignore[method-assign]
    contestant.round()
    assert lengths == [70]


def test_another_question_and_another_region_cost_what_is_new(half_nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time as the count of tiles and tokens: the figures are of the work that is left, not of a fresh start."""
    contestant = Contestant(half_nano, Setting(4, (1,), 2, "onnxruntime", "standard", 1), lambda step: None)
    seen = []
    encode = contestant.gar.pipeline.vision.encode

    def counted(pixels: np.ndarray, *rest: object) -> object:
        seen.append(len(pixels))
        return encode(pixels, *rest)

    monkeypatch.setattr(contestant.gar.pipeline.vision, "encode", counted)
    contestant.round()
    assert seen[:2] == [4, 1]  # thumbnail and four tiles, in two runs
    assert 1 <= seen[2] < 5


def test_the_roof_is_the_best_of_those_around_the_rounds(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine that others use as well: each figure by itself."""
    seen = iter([roof.Roof(30.0, 1.0, 5.0, 9.0), roof.Roof(10.0, 2.0, 6.0, 7.0), roof.Roof(20.0, 3.0, 4.0, 8.0)])
    monkeypatch.setattr(roof, "measure_roof", lambda threads: next(seen))
    report = json.loads(bench("-m", str(tiny_bundle), *RUN[:-1], "2", "--json"))
    assert report["roof"] == {"read_gb_s": 30.0, "copy_gb_s": 3.0, "fp32_gop_s": 6.0, "int8_gop_s": 9.0}
    assert report["decode"]["share_of_roof"] == pytest.approx(report["decode"]["gb_s"] / 30, abs=1e-4)
    assert next(seen, None) is None


def test_a_roof_is_above_the_ground() -> None:
    assert all(value > 0 for value in vars(roof.measure_roof(1)).values())


def test_the_work_of_the_released_1b_is_its_known_count() -> None:
    """0.706 TFLOP a tile; a token: 2 x 15 layers of Llama 3.2's 973 M weights in 16, and 6.3 M of the last one."""
    vision = {"tile": 448, "patch": 14, "dim": 1024, "depth": 23, "mlp": 4096, "class_token": True}
    text = {"hidden": 2048, "ffn": 8192, "layers": 16, "heads": 32, "kv_heads": 8, "head_dim": 64}

    class Sizes:
        def __init__(self, **values: object) -> None:
            self.__dict__.update(values)

    config = Sizes(vision=Sizes(grid=32, **vision), text=Sizes(**text), pooling=2, tile_tokens=256)
    work = describe_work(config)  # type: ignore[arg-type]
    assert work.encoder_tile == pytest.approx(0.706e12, rel=0.01)
    assert work.decoder_token == 2 * (15 * 60_817_408 + 2048 * (2048 + 512 + 512))


def test_a_minute_of_soak_changes_no_answer_and_grows_no_memory(half_nano: Path) -> None:
    text = bench("-m", str(half_nano), "--soak", "1")
    assert "0 changed" in text


def test_the_record_of_a_soak_stays_small_and_even() -> None:
    history = soak.History()
    for number in range(3 * soak.KEPT):
        history.add((float(number), 0.0, 0))
    kept = [int(row[0]) for row in history.rows]
    assert history.rounds == 3 * soak.KEPT
    assert kept == list(range(0, 3 * soak.KEPT, 4))


def test_a_soak_notices_a_changed_answer_and_grown_memory(half_nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter(range(10**8, 10**12, 10**6))
    monkeypatch.setattr(soak, "resident", lambda: next(sizes))
    drift = soak.soak(Gar.load(half_nano), 0.5, lambda share: None)
    assert drift.memory > 0.01
    assert drift.changed == 0
    gar = Gar.load(half_nano)
    describe = stages.Scene.describe
    calls = []

    def forgetful(self: stages.Scene, mask: np.ndarray, **rest: object) -> object:
        calls.append(mask)
        return describe(self, ~mask if len(calls) > 12 else mask, **rest)

    monkeypatch.setattr(stages.Scene, "describe", forgetful)
    assert soak.soak(gar, 1.0, lambda share: None).changed > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--tiles", "0"], 2, "tiles"),
        (["--tiles", "100000"], 1, "would overflow the model's context"),
        (["--regions", "0"], 2, "regions"),
        (["-m", "no/such/folder"], 1, "no such bundle"),
    ],
)
def test_bad_arguments_are_one_line(tiny_bundle: Path, arguments: list[str], code: int, message: str) -> None:
    import subprocess
    import sys

    model = [] if "-m" in arguments else ["-m", str(tiny_bundle)]
    command = [sys.executable, "-m", "gar_edge.runtime.cli.bench", *model, *RUN[2:], *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("error:")]) == 1
