"""`gar-run --interactive`: fed lines, a terminal's keys, and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gar_edge.runtime import Box, Gar, Options
from gar_edge.runtime.cli.interactive import Dialogue
from gar_edge.runtime.cli.run import app

BLOCK, CORNER = Box(25, 15, 86, 66), Box(100, 60, 130, 90)
REGIONS = ("--box", f"0={BLOCK}", "--box", f"2={CORNER}", "--box-as-mask")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory, picture: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("interactive") / "photo.png"
    Image.fromarray(picture).save(path)
    return path


def talk(photo: Path, bundle: Path, *lines: str, options: tuple[str, ...] = ()) -> tuple[list[str], str]:
    """What gar-run prints to these lines, and its errors."""
    command = [str(photo), *REGIONS, "-m", str(bundle), "--max-new-tokens", "8", "--interactive", *options]
    done = CliRunner().invoke(app, command, input="\n".join(lines), standalone_mode=False)
    assert done.exception is None, done.exception
    return done.stdout.splitlines(), done.stderr


def test_questions_are_answered_as_in_python_and_from_the_caches(photo: Path, tiny_bundle: Path) -> None:
    questions = ("Is <Prompt0> red?", "Is <Prompt0> on <Prompt2>?")
    found, errors = talk(photo, tiny_bundle, *questions, ":describe 2", ":quit", "ignored", options=("--json",))
    scene, options = Gar.load(tiny_bundle).open(photo), Options(max_new_tokens=8)
    masks = {number: np.zeros(scene.image.shape[:2], bool) for number in (0, 2)}
    masks[0][15:66, 25:86] = masks[2][60:90, 100:130] = True
    expected = [
        scene.ask(questions[0], {0: masks[0]}, options=options),
        scene.ask(questions[1], masks, options=options),
        scene.describe(masks[2], number=2, options=options),
    ]
    assert [json.loads(line)["tokens"] for line in found] == [list(answer.tokens) for answer in expected]
    assert errors == ""


def test_regions_and_help_are_listed(photo: Path, tiny_bundle: Path) -> None:
    found, _ = talk(photo, tiny_bundle, ":regions", ":help")
    assert found[0] == "<Prompt0>  25,15,86,66  26.6 % of the picture"
    assert found[1] == "<Prompt2>  100,60,130,90  7.7 % of the picture"
    assert any(line.startswith(":quit") for line in found[2:])


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("Is <Prompt1> red?", "there is no region 1; there are 0, 2"),
        ("Is it red?", "names no region; say which, e.g. <Prompt0>"),
        (":colour", ":colour is no command; :help lists them"),
        (":describe 7", "there is no region 7"),
        (":describe x", "is no command"),
        (":", "is no command"),
        ("Is <Prompt0> RESERVED?", "reserve"),
    ],
)
def test_an_error_ends_its_question_alone(photo: Path, tiny_bundle: Path, line: str, part: str) -> None:
    if "RESERVED" in line:
        line = line.replace("RESERVED", Gar.load(tiny_bundle).manifest.prompt.begin_text)
    found, errors = talk(photo, tiny_bundle, line, "", "Is <Prompt0> red?", options=("--json",))
    assert errors.startswith("error: ")
    assert part in errors
    assert errors.count("\n") == 1
    assert len(found) == 1


def test_a_question_given_at_first_is_answered_first(photo: Path, tiny_bundle: Path) -> None:
    first = ("-q", "Is <Prompt0> on <Prompt2>?", "--json")
    found, _ = talk(photo, tiny_bundle, "Is <Prompt0> on <Prompt2>?", options=first)
    assert json.loads(found[0])["tokens"] == json.loads(found[1])["tokens"]


def test_any_number_of_regions_five_in_a_question(capsys: pytest.CaptureFixture[str]) -> None:
    regions = {number: np.eye(9, k=number) > 0 for number in range(9)}
    asked: list[tuple[str | None, dict[int, int]]] = []

    def ask(question: str | None, masks: Mapping[int, np.ndarray], cancel: threading.Event) -> None:
        asked.append((question, {number: int(mask.argmax(axis=1)[0]) for number, mask in masks.items()}))

    session = Dialogue(regions, ask, 5)
    for line in (
        "Is <Prompt7> on <Prompt1>?",
        ":describe 6",
        "<Prompt8> <Prompt0> <Prompt8> <Prompt2> <Prompt1> <Prompt5>",
        "Is <Prompt0> on <Prompt1>, <Prompt2>, <Prompt3>, <Prompt4> or <Prompt5>?",
        f"Is <Prompt{'9' * 5000}> red?",
    ):
        session._handle(line)
    assert asked == [
        ("Is <Prompt0> on <Prompt1>?", {1: 1, 0: 7}),
        (None, {0: 6}),
        ("<Prompt4> <Prompt0> <Prompt4> <Prompt2> <Prompt1> <Prompt3>", {0: 0, 1: 1, 2: 2, 3: 5, 4: 8}),
    ]
    errors = capsys.readouterr().err.splitlines()
    assert errors[:2] == ["(<Prompt7> is asked about as <Prompt0>)", "(<Prompt6> is asked about as <Prompt0>)"]
    assert "the question names 6 regions; the model takes at most 5 at once" in errors[4]
    assert "names no region" in errors[5]


def test_ctrl_c_during_an_answer_ends_the_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def ask(question: str | None, masks: Mapping[int, np.ndarray], cancel: threading.Event) -> None:
        asked.append(question)
        if len(asked) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            assert cancel.wait(10)

    lines = iter(["first <Prompt0>", "second <Prompt0>"])
    monkeypatch.setattr("gar_edge.runtime.cli.interactive._typed", lambda: lines)
    Dialogue({0: np.ones((4, 4), bool)}, ask, 5).run()
    assert asked == ["first <Prompt0>", "second <Prompt0>"]
    assert signal.getsignal(signal.SIGINT) is not None


def start(photo: Path, bundle: Path, **streams: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gar_edge.runtime.cli.run", str(photo), *REGIONS, "-m", str(bundle)]
    return subprocess.Popen([*command, "--max-new-tokens", "2", "--interactive"], **streams)  # type: ignore[call-overload]


def test_ctrl_c_at_the_prompt_leaves_cleanly(photo: Path, tiny_bundle: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(photo, tiny_bundle, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b":regions\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"<Prompt0>")
        process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0  # though stdin is still open
        out, errors = process.communicate()
    assert (out.strip(), errors) == (b"", b"")


def test_a_terminal_has_a_prompt_and_a_history(photo: Path, tiny_bundle: Path, home: Path) -> None:
    pty = pytest.importorskip("pty")
    pytest.importorskip("readline")
    mine, theirs = pty.openpty()
    with start(photo, tiny_bundle, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        for awaited, typed in ((b"> ", b":regions\n"), (b"7.7 %", b""), (b"> ", b"\x04")):
            while awaited not in seen:
                seen += os.read(mine, 4096)
            seen = seen[seen.index(awaited) + len(awaited) :]
            os.write(mine, typed)
        assert process.wait(timeout=60) == 0
    os.close(mine)
    assert ":regions" in (home / "history").read_text()
