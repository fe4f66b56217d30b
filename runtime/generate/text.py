"""Token ids to text while they arrive: whole characters only, stop texts held back."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

_INCOMPLETE = "\ufffd"  # how a byte-level tokenizer shows a character whose last bytes have not come yet


class TextStream:
    """Decodes one answer piece by piece; the pieces joined are the answer's text."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._pending: list[int] = []  # ids since the last whole character
        self._decoded = 0  # characters of `pending` already taken over
        self._held = ""  # text that may be the beginning of a stop text
        self.stopped = False

    def push(self, token: int) -> str:
        """Take one token; the text that is certain by now (often empty). `stopped` tells that a stop text was met."""
        self._pending.append(token)
        text = self._tokenizer.decode(self._pending, skip_special_tokens=True)
        if text.endswith(_INCOMPLETE):
            new = text[self._decoded : -1]
            self._decoded += len(new)
        else:
            new = text[self._decoded :]
            self._pending, self._decoded = [], 0
        return self._release(new)

    def finish(self) -> str:
        """What is left when no more tokens come, incomplete characters included."""
        if self.stopped:
            return ""
        text = self._tokenizer.decode(self._pending, skip_special_tokens=True)[self._decoded :]
        self._pending, self._decoded = [], 0
        released = self._release(text)
        if self.stopped:
            return released
        released, self._held = released + self._held, ""
        return released

    def _release(self, new: str) -> str:
        """Hold back the longest end that could grow into a stop text; cut at a stop text that is whole."""
        text = self._held + new
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
