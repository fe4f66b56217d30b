"""docs/cli.md says what the commands say."""

import re

from generate_cli_docs import COMMANDS, PAGE, page


def test_the_page_is_that_of_these_commands() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make docs"


def test_it_has_every_command_and_no_escape_codes() -> None:
    text = page()
    for name in COMMANDS:
        assert f"## {name}\n" in text
    assert "### gar-engine build\n" in text
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


def test_options_have_their_values_defaults_and_help() -> None:
    rows = {line.split("`")[1]: line for line in page().split("## gar-export\n")[0].splitlines() if line[:3] == "| `"}
    assert rows["--box"].startswith("| `--box` | `[K=]X1,Y1,X2,Y2`, may be repeated |  | A region: ")
    assert rows["--every"].startswith("| `--every` | whole number from 1 |  | Ask about every so many frames.")
    assert (
        rows["--max-new-tokens"] == "| `--max-new-tokens` | whole number from 1 | `1024` | Longest answer, in tokens. |"
    )
    assert rows["--backend"].split(" | ")[1:3] == [
        "`auto`, `onnxruntime`, `cuda`, `tensorrt`, `tensorrt_rtx`",
        "`auto`",
    ]
    assert rows["--realtime"].split(" | ")[1:3] == ["", ""]
