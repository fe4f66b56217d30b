"""Choose among detections by asking, and choose none rather than a doubtful one.

`python examples/pick_by_description.py PICTURE 'What colour is {}?' pink,red,green,blue MASK MASK …`

Every candidate gets the same question, with its region's name in place of {}, and the choices are what may be answered;
all are asked side by side. Printed are the masks for which the first choice is sure, the likeliest first. (The released
models also take 'Is {} ripe?' and yes,no.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gar_edge.runtime import Choice, Choosing, Gar, Options

SURE = 0.9  # how probable the wanted answer must be before a robot reaches for it


def pick(
    gar: Gar, picture: str, question: str, choices: Sequence[str], candidates: Sequence[str]
) -> list[tuple[float, str]]:
    """Each candidate's mask with the probability of the first choice, the likeliest first."""
    region = gar.manifest.prompt.default_region
    text = question.replace("{}", gar.manifest.prompt.regions[region])
    questions = [(text, {region: mask}) for mask in candidates]
    ranked = []
    for index, answer in gar.open(picture).answer_all(questions, options=Options(choosing=Choosing(choices))):
        assert isinstance(answer, Choice)
        ranked.append((answer.probabilities[choices[0]], candidates[index]))
    return sorted(ranked, reverse=True)


if __name__ == "__main__":
    if len(sys.argv) < 5 or "{}" not in sys.argv[2]:
        sys.exit(f"usage: {sys.argv[0]} PICTURE 'What colour is {{}}?' WANTED,OTHER[,OTHER …] MASK [MASK …]")
    with Gar.load() as model:
        found = pick(model, sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4:])
    sure = [f"{mask} ({probability:.1%})" for probability, mask in found if probability >= SURE]
    print("\n".join(sure) or f"none is sure; the likeliest is {found[0][1]} ({found[0][0]:.1%})")
