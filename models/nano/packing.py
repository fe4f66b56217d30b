"""Many question turns about one prefix in one sequence: a tree of segments, each seeing only its ancestors.

The root holds the system turn, the image and the names of the regions; one branch each for the default description
and for questions holds the replay tokens (the two formats differ from there on); every turn is a leaf.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gar_edge.models.nano import wording
from gar_edge.models.nano.tasks import Turn

Ids = NDArray[np.int64]

NO_TARGET = -1
END_WEIGHT = 0.2  # of the end token in the loss, relative to a word of the answer


@dataclass
class Packed:
    """One sequence of S tokens.

    ids, positions, segments, targets [S] (the next token's id or NO_TARGET), weights [S] of the targets, `sees`
    [segments, segments]: whether a segment sees another; tasks: the leaves' tasks, by segment; words: where a
    letter is to be said, and the token (the first one, behind a space) of the word it stands for; chosen: the prompt
    number of the region that a leaf's "which" asks for, by segment.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    words: list[tuple[int, int]] = field(default_factory=list)
    chosen: dict[int, int] = field(default_factory=dict)

    def add(self, parent: int, start: int, ids: list[int], answer_from: int | None = None, task: str = "") -> int:
        """Append a segment whose first position is `start`; the tokens from `answer_from` on are to be predicted."""
        segment = len(self.parents)
        count = len(ids)
        self.ids += ids
        self.positions += range(start, start + count)
        self.segments += [segment] * count
        self.parents.append(parent)
        self.tasks.append(task)
        if answer_from is None:
            self.targets += [NO_TARGET] * count
            self.weights += [0.0] * count
            return segment
        asked = count - answer_from
        self.targets += [NO_TARGET] * (answer_from - 1) + ids[answer_from:] + [NO_TARGET]
        self.weights += [0.0] * (answer_from - 1) + [1.0] * (asked - 1) + [END_WEIGHT, 0.0]
        return segment

    def sees(self) -> NDArray[np.bool_]:
        """[segments, segments]: row sees column, itself and its ancestors."""
        table = np.eye(len(self.parents), dtype=np.bool_)
        for segment, parent in enumerate(self.parents):
            if parent >= 0:
                table[segment] |= table[parent]
        return table


class Packer:
    """Turns texts into packed sequences. `tile_tokens` P; `image` and `replay` are token ids."""

    def __init__(self, tokenizer: Tokenizer, tile_tokens: int, image: int, replay: list[int]) -> None:
        self.tokenizer, self.tile_tokens, self.image, self.replay = tokenizer, tile_tokens, image, replay
        self.names = [tokenizer.token_to_id(wording.prompt(number)) for number in range(len(replay))]
        self._encode = lru_cache(maxsize=20000)(self._encode_text)
        self.before = self.encode(
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
            f"{wording.SYSTEM}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that begins at a special token's edge."""
        return list(self._encode(text))

    def _encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def root(self, numbers: list[int], tiles: int) -> list[int]:
        """Everything up to the last region's name; `tiles` counts the thumbnail."""
        names = "; ".join(wording.prompt(number) for number in numbers)
        about = self.encode(f"There are some objects I am curious about: {names}")
        return self.before + [self.image] * (tiles * self.tile_tokens) + about

    def branch(self, numbers: list[int], default: bool) -> list[int]:
        """From behind the last region's name to its replay tokens."""
        ids: list[int] = []
        for index, number in enumerate(numbers):
            lead = "\n" if index else ";\n" if default else "; \n"
            ids += self.encode(f"{lead}{wording.prompt(number)}: ") + [self.replay[number]] * self.tile_tokens
        return ids

    def leaf(self, turn: Turn) -> tuple[list[int], int]:
        """Tokens of one turn behind the replay tokens, and where its answer begins."""
        said = wording.DESCRIBE if turn.question is None else f"\n\n{turn.question}"
        asked = self.encode(f"{said}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
        return asked + self.encode(turn.answer) + self.encode("<|eot_id|>"), len(asked)

    def pack(self, numbers: list[int], tiles: int, turns: list[Turn], limit: int) -> Packed:
        """All turns that fit into `limit` tokens, in their order."""
        packed = Packed()
        root = self.root(numbers, tiles)
        packed.add(-1, 0, root)
        branches: dict[bool, tuple[int, int]] = {}
        for turn in turns:
            default = turn.question is None
            ids, answer = self.leaf(turn)
            branch = self.branch(numbers, default)
            if len(packed.ids) + len(ids) + (0 if default in branches else len(branch)) > limit:
                continue
            if default not in branches:
                branches[default] = (packed.add(0, len(root), branch), len(root) + len(branch))
            parent, start = branches[default]
            if turn.word is not None:
                packed.words.append((len(packed.ids) + answer - 1, self.encode(f" {turn.word}")[0]))
            segment = packed.add(parent, start, ids, answer, turn.task)
            if turn.chosen is not None:
                packed.chosen[segment] = turn.chosen
        return packed
