"""An answer's tokens and text while they come, and why they ended."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from gar_edge.runtime.generate.answer import FinishReason
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.generate.text import TextStream


class Transcript:
    """`tokens`: all that came, the stop token included; `text`: what they say; `reason`: None while more may come.

    Where nobody reads along and no text can end the answer, it is decoded once, at its end.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop_tokens: Sequence[int], options: Options, *, room: int, streamed: bool
    ) -> None:
        """room: tokens that fit at most."""
        self.tokens: list[int] = []
        self.text = ""
        self.reason: FinishReason | None = None
        self._room = room
        self._stop_tokens = stop_tokens
        self._tokenizer = tokenizer
        self._stream = TextStream(tokenizer, options.stop) if streamed or options.stop else None

    @property
    def cut(self) -> bool:
        """Whether a stop text has ended it, so that it may lack what came behind."""
        return self._stream is not None and self._stream.stopped

    def push(self, token: int, *, over: bool = False) -> str:
        """Take a token; the text that is certain by now, often empty. over: nothing but the end could follow."""
        self.tokens.append(token)
        new = ""
        if token in self._stop_tokens:
            self.reason = "stop"
        else:
            new = self._stream.push(token) if self._stream is not None else ""
            if over or self.cut:
                self.reason = "stop"
            elif len(self.tokens) == self._room:
                self.reason = "length"
        if self.reason is not None:
            new += self._rest()
        self.text += new
        return new

    def end(self, reason: FinishReason) -> str:
        """No more tokens will come; the text that was held back."""
        self.reason = reason
        rest = self._rest()
        self.text += rest
        return rest

    def _rest(self) -> str:
        if self._stream is not None:
            return self._stream.finish()
        said = self.tokens[:-1] if self.tokens and self.tokens[-1] in self._stop_tokens else self.tokens
        return self._tokenizer.decode(said, skip_special_tokens=True)
