"""B against A: against hand-worked intervals and probabilities."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.bench_data import captions, multiple_choice, picture, runs

from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.evaluate.compare import compare, interval, mcnemar
from gar_edge.runtime.evaluate.tasks import task_of


def pairs(both: int, better: int, worse: int, neither: int) -> np.ndarray:
    """Right and wrong of A and B, so many times each."""
    return np.repeat([[1, 1], [0, 1], [1, 0], [0, 0]], [both, better, worse, neither], axis=0).astype(float)


@pytest.mark.parametrize("counts", [(700, 40, 60, 200), (1500, 10, 15, 475), (50, 20, 5, 25)])
def test_the_interval_is_that_of_a_hand_worked_table(counts: tuple[int, int, int, int]) -> None:
    """By the normal approximation of paired proportions: d ± 1.96 sqrt(b + c - (b - c)² / n) / n."""
    table = pairs(*counts)
    total, (_, better, worse, _) = len(table), counts
    difference = (better - worse) / total
    spread = 1.959964 * math.sqrt(better + worse - (better - worse) ** 2 / total) / total
    low, high = interval(table[:, 1] - table[:, 0])
    assert low == pytest.approx(difference - spread, abs=0.05 * spread + 1 / total)
    assert high == pytest.approx(difference + spread, abs=0.05 * spread + 1 / total)


def test_the_interval_is_that_of_drawing_pairs_one_by_one() -> None:
    marks = np.random.default_rng(1).choice([0.0, 0.25, 0.5, 1.0], (300, 2))
    differences = marks[:, 1] - marks[:, 0]
    rng = np.random.default_rng(2)
    means = [rng.choice(differences, len(differences)).mean() for _ in range(10_000)]
    np.testing.assert_allclose(interval(differences), np.quantile(means, [0.025, 0.975]), atol=0.004)


@pytest.mark.parametrize(
    ("better", "worse", "expected"),
    [
        (0, 0, 1.0),
        (1, 1, 1.0),  # 2 * (1 + 2) / 4, at most 1
        (0, 5, 2 / 32),
        (1, 6, 2 * (1 + 7) / 128),
        (6, 1, 2 * (1 + 7) / 128),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
    ],
)
def test_mcnemar_is_the_exact_one(better: int, worse: int, expected: float) -> None:
    assert mcnemar(pairs(10, better, worse, 10)) == pytest.approx(expected)


def test_agreement_changes_and_kinds(tmp_path: Path) -> None:
    multiple_choice(tmp_path, 6)
    items = task_of("gar-bench-vqa").read(tmp_path)
    a = ["A", "A", "B", "B", None, "A"]
    b = ["a", "B", "A", "C", "A", "A<|eot_id|>"]
    marks_a, marks_b = [1.0, 1.0, 0.0, 0.0, None, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]
    found = compare(items, a, b, marks_a, marks_b)
    assert found.whole.questions == 5
    assert found.whole.agreement == 2 / 5
    assert (found.whole.a, found.whole.b, found.whole.difference) == (3 / 5, 3 / 5, 0)
    assert found.changed == (1, 2, 3)
    assert found.kinds["color"].questions == 3  # 1, 3 and 5
    assert found.kinds["color"].difference == pytest.approx(-1 / 3)
    assert not found.worse(0.0)
    same = compare(items, a, a, marks_a, marks_a)
    assert (same.whole.agreement, same.whole.difference, same.whole.interval) == (1.0, 0.0, (0.0, 0.0))
    assert (same.changed, same.whole.p) == ((), 1.0)


def evaluate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gar_edge.runtime.cli.evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_gate_fails_where_b_is_worse_by_more_than_the_margin(tmp_path: Path) -> None:
    entries = multiple_choice(tmp_path, 10)
    for name, right in (("a", 9), ("b", 7)):
        answers = [{**entry, "model_output": "A" if place < right else "B"} for place, entry in enumerate(entries)]
        (tmp_path / f"{name}.json").write_text(json.dumps(answers))
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    line = ("compare", "gar-bench-vqa", a, b, "--data", tmp_path)
    worse = evaluate(*line, "--margin", "0.1")
    assert worse.returncode == 1
    assert "b.json is worse than" in worse.stderr
    assert "by 20.0%, more than 10.0%" in " ".join(worse.stderr.split())
    assert evaluate(*line, "--margin", "0.2").returncode == 0
    assert evaluate("compare", "gar-bench-vqa", b, a, "--data", tmp_path, "--margin", "0").returncode == 0
    shown = evaluate(*line, "--json", "--page", tmp_path / "page.html")
    found = json.loads(shown.stdout)
    assert found["all"]["difference"] == -0.2
    assert found["changed"] == 2
    page = (tmp_path / "page.html").read_text()
    assert page.count("<figure>") == 2
    assert page.count("data:image/jpeg;base64,") == 2
    assert "Which is red, &lt;Prompt0&gt; or &lt;Prompt1&gt;?" in page


def test_two_bundles_are_asked_and_compared(tmp_path: Path) -> None:
    from gar_edge.models.nano.questions import write_questions

    write_questions(tmp_path / "data", 3, range(2), each=3)
    line = ("compare", "regions", SHIPPED, SHIPPED, "--data", tmp_path / "data", "--json")
    found = json.loads(evaluate(*line, "--out", tmp_path / "out", "--margin", "0").stdout)
    assert (found["all"]["agreement"], found["all"]["difference"], found["changed"]) == (1.0, 0.0, 0)
    refused = evaluate(*line)
    assert refused.returncode == 2
    assert "--out says where" in refused.stderr


def test_captions_are_compared_word_for_word_and_have_no_gate_without_a_judge(tmp_path: Path) -> None:
    entries = captions(tmp_path, 3)
    for name, words in (("a", "one"), ("b", "two")):
        (tmp_path / f"{name}.json").write_text(json.dumps([{**entry, "model_output": words} for entry in entries]))
    line = ("compare", "gar-bench-caption-simple", tmp_path / "a.json", tmp_path / "b.json", "--data", tmp_path)
    found = json.loads(evaluate(*line, "--json").stdout)
    assert (found["all"]["agreement"], found["all"]["difference"]) == (0.0, None)
    gate = evaluate(*line, "--margin", "0.1")
    assert gate.returncode == 2
    assert "judged" in gate.stderr


def test_the_commands_say_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    multiple_choice(tmp_path, 1)
    unknown = evaluate("run", "gar-bench", "--data", tmp_path, "--out", tmp_path / "out")
    assert unknown.returncode == 2
    assert "there is no task gar-bench; there are gar-bench-vqa" in " ".join(unknown.stderr.split())
    assert "Traceback" not in unknown.stderr
    nowhere = evaluate("run", "dlc-bench", "--data", tmp_path, "--out", tmp_path / "out")
    assert nowhere.returncode == 2
    assert "annotations.json: cannot be read" in " ".join(nowhere.stderr.split())


def test_a_gate_needs_all_of_bs_answers(tmp_path: Path) -> None:
    entries = multiple_choice(tmp_path, 4)
    answers = [{**entry, "model_output": "A"} for entry in entries]
    for name, some in (("a", answers), ("few", answers[:3])):
        (tmp_path / f"{name}.json").write_text(json.dumps(some))
    line = ("compare", "gar-bench-vqa", tmp_path / "a.json", tmp_path / "few.json", "--data", tmp_path)
    assert json.loads(evaluate(*line, "--json").stdout)["lacking"] == 1
    gate = evaluate(*line, "--margin", "0.5")
    assert gate.returncode == 2
    assert "lacks 1 of the 4 questions" in " ".join(gate.stderr.split())
    (tmp_path / "none.json").write_text("[]")
    nothing = evaluate("score", "gar-bench-vqa", tmp_path / "none.json", "--data", tmp_path)
    assert nothing.returncode == 2
    assert "nothing to mark" in nothing.stderr


def test_kinds_may_be_called_anything(tmp_path: Path) -> None:
    picture(tmp_path, "a.png")
    kinds = ["all", "[/red]", None]
    lines = [
        {"id": place, "image": "a.png", "question": "Is <Prompt0> red?", "answer": "yes", "type": kind,
         "regions": [runs(place)]}
        for place, kind in enumerate(kinds)
    ]  # fmt: skip
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = [{**line, "model_output": word} for line, word in zip(lines, ("yes", "no", "no"), strict=True)]
    (tmp_path / "answers.json").write_text(json.dumps(said))
    scored = evaluate("score", "regions", tmp_path / "answers.json", "--data", tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert "[/red]" in scored.stdout
    line = ("compare", "regions", tmp_path / "answers.json", tmp_path / "answers.json", "--data", tmp_path)
    table = evaluate(*line).stdout
    rows = [row.split("│")[1:3] for row in table.splitlines() if row.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["all", "3"],
        ["[/red]", "1"],
        ["all", "1"],
        ["untyped", "1"],
    ]
