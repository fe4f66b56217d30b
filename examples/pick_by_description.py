"""Choose among detections by asking.

`python examples/pick_by_description.py PICTURE 'What colour is {}?' red MASK MASK …`

Every candidate gets the same question, with its region's name in place of {}; all are answered side by side. The masks
whose answers have the wanted word are printed. (The released models also take 'Is {} ripe?' and yes.)
"""

from __future__ import annotations

import re
import sys

from gar_edge.runtime import Gar, Options


def pick(gar: Gar, picture: str, question: str, wanted: str, candidates: list[str]) -> list[str]:
    """The candidates' masks whose answers have the wanted word."""
    region = gar.manifest.prompt.default_region
    text = question.replace("{}", gar.manifest.prompt.regions[region])
    questions = [(text, {region: mask}) for mask in candidates]
    answers = dict(gar.open(picture).answer_all(questions, options=Options(max_new_tokens=8)))
    word = re.compile(rf"\b{re.escape(wanted)}\b", re.IGNORECASE)
    return [mask for index, mask in enumerate(candidates) if word.search(answers[index].text)]


if __name__ == "__main__":
    if len(sys.argv) < 5 or "{}" not in sys.argv[2]:
        sys.exit(f"usage: {sys.argv[0]} PICTURE 'What colour is {{}}?' WORD MASK [MASK …]")
    with Gar.load() as model:
        chosen = pick(model, sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
    print("\n".join(chosen) or "none")
