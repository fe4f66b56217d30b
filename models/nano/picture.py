"""A picture of sample scenes: their regions outlined, questions, answers and truth beside them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from gar_edge.models.nano import wording
from gar_edge.models.nano.exam import Question
from gar_edge.models.nano.scenes import Image as Pixels

SIDE = 190
TEXT_WIDTH = 330
LINE = 13
COLUMNS = 2
LINES = 14
OUTLINES = ((255, 0, 0), (0, 90, 255), (0, 150, 0), (255, 140, 0), (170, 0, 200))


def sheet(answers: Sequence[tuple[Question, str | None]], cells: int = 12) -> Image.Image:
    """One cell per question, evenly picked; an answer None shows the truth alone, a wrong one is red."""
    picked = [answers[i] for i in np.linspace(0, len(answers) - 1, min(cells, len(answers))).astype(int)]
    rows = -(-len(picked) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * (SIDE + TEXT_WIDTH), rows * (SIDE + 10)), "white")
    for index, (question, answer) in enumerate(picked):
        row, column = divmod(index, COLUMNS)
        _cell(canvas, (column * (SIDE + TEXT_WIDTH), row * (SIDE + 10)), question, answer)
    return canvas


def _cell(canvas: Image.Image, at: tuple[int, int], question: Question, answer: str | None) -> None:
    canvas.paste(Image.fromarray(_outlined(question)), at)
    draw = ImageDraw.Draw(canvas)
    turn = question.turn
    lines = [(text, "black") for text in _wrapped(turn.question or wording.DESCRIBE)]
    lines += [(text, "darkgreen") for text in _wrapped("truth: " + turn.answer)]
    if answer is not None:
        colour = "black" if answer.strip() == turn.answer else "red"
        lines += [(text, colour) for text in _wrapped("answer: " + answer)]
    for number, (text, colour) in enumerate(lines[:LINES]):
        draw.text((at[0] + SIDE + 8, at[1] + 4 + LINE * number), text, fill=colour)


def _outlined(question: Question) -> Pixels:
    image = question.scene.image
    scale = SIDE / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = np.asarray(cv2.resize(image, size, interpolation=kernel), np.uint8)
    for number, mask in question.masks.items():
        plane = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(plane, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, contours, -1, OUTLINES[number], 2)
        x, y, _, _ = cv2.boundingRect(plane)
        cv2.putText(image, str(number), (x, y + 10), cv2.FONT_HERSHEY_SIMPLEX, 0.4, OUTLINES[number], 1, cv2.LINE_AA)
    return np.asarray(image, np.uint8)


def _wrapped(text: str, width: int = 52) -> list[str]:
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            if line and len(line) + len(word) >= width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}".strip()
        lines.append(line)
    return lines
