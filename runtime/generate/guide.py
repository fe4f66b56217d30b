"""Which tokens may come next in an answer with a structure; llguidance knows, and is loaded when the first asks."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer

from gar_edge.runtime.errors import GarBackendError, GarPromptError
from gar_edge.runtime.generate.structure import Structure

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

KEPT = 16  # structures whose grammars stay compiled; jobs and servers ask with the same again and again


class TokenGuide:
    """Compiles structures for one tokenizer; threads may share it."""

    def __init__(self, tokenizer: Tokenizer, *, vocabulary: int, stop_tokens: Sequence[int]) -> None:
        """vocabulary: logits a prediction has, which can be more than the tokenizer has tokens."""
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._stop_tokens = list(stop_tokens)
        self._compiled: OrderedDict[tuple[str, str], Matcher] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, structure: Structure) -> Matcher:
        """A matcher at an answer's beginning.

        `GarPromptError` says which keyword or what part of the structure cannot be held to, or why no answer can be as
        it wants; `GarBackendError` where llguidance is not installed.
        """
        key = (structure.kind, structure.source)
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = self._compile(structure)
            self._compiled.move_to_end(key)
            while len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
            return self._compiled[key].copy()

    def _compile(self, structure: Structure) -> Matcher:
        tokens = self._tokens
        from llguidance import LLMatcher

        for reserved in self._reserved:
            if reserved in structure.source:  # which llguidance would write as the one token that it names
                raise GarPromptError(f"the {structure.kind} contains {reserved}, which the model reserves; remove it")
        try:
            if structure.kind == "schema":
                # As `json.dumps` writes; where spaces are free, a model may go on with them for ever.
                grammar = LLMatcher.grammar_from_json_schema(
                    structure.source,
                    overrides={
                        "whitespace_flexible": False,
                        "item_separator": ", ",
                        "key_separator": ": ",
                        "lenient": False,  # whatever the schema says about it
                        "coerce_one_of": False,
                    },
                )
            elif structure.kind == "regex":
                grammar = LLMatcher.grammar_from_regex(structure.source)
            else:
                grammar = LLMatcher.grammar_from_lark(structure.source)
        except ValueError as error:
            raise GarPromptError(f"the {structure.kind} cannot be used: {_reason(str(error))}") from None
        matcher = LLMatcher(tokens, grammar, log_level=0)
        if matcher.is_error():
            raise GarPromptError(f"the {structure.kind} cannot be used: {_reason(matcher.get_error())}")
        made = Matcher(matcher, self._writable, structure)
        made.look()  # what the first token costs is most; it is paid here, in the caller's thread
        return made

    @cached_property
    def _tokens(self) -> LLTokenizer:
        try:
            from llguidance import LLTokenizer
        except ImportError:
            raise GarBackendError(
                "llguidance is not installed, which holds answers to a structure; pip install 'gar-edge[structured]'"
            ) from None
        return LLTokenizer(self._tokenizer.to_str(), n_vocab=self._vocabulary, eos_token=self._stop_tokens, slices=None)

    @cached_property
    def _reserved(self) -> list[str]:
        return sorted(token.content for token in self._special.values())

    @cached_property
    def _special(self) -> dict[int, AddedToken]:
        return {id: token for id, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}

    @cached_property
    def _writable(self) -> NDArray[np.uint8]:
        """A bit for each token that an answer may hold: all that are text, and those that end it.

        The others stand for pictures and regions in a prompt. A grammar may name them, and an answer that held one
        would carry it into the next prompt of a conversation.
        """
        words = self._tokenizer.get_vocab_size(with_added_tokens=True)
        bits = np.zeros(-(-self._vocabulary // 32) * 32, np.bool_)
        bits[: min(words, self._vocabulary)] = True
        bits[list(self._special)] = False
        bits[self._stop_tokens] = True
        return np.packbits(bits, bitorder="little")


class Matcher:
    """How far an answer has come in its structure."""

    def __init__(self, inner: LLMatcher, writable: NDArray[np.uint8], structure: Structure) -> None:
        self.structure = structure
        self._inner = inner
        self._writable = writable
        self._mask: NDArray[np.uint8] | None = None  # a bit for each token; None until it is looked for

    def copy(self) -> Matcher:
        """Another at the same place."""
        made = Matcher(self._inner.deep_copy(), self._writable, self.structure)
        made._mask = self._mask
        return made

    def look(self) -> None:
        """Find out which tokens may come next: tens of microseconds, best spent while the engine computes.

        `GarPromptError` where there are none, or where it would take too long to know.
        """
        if self._mask is not None:
            return
        mask = np.frombuffer(self._inner.compute_bitmask(), np.uint8) & self._writable
        if self._inner.is_error():
            raise self._error()
        if not mask.any():
            raise GarPromptError(
                f"the {self.structure.kind} wants what no answer can hold here: reserved tokens, or characters that "
                "the model's tokenizer lacks"
            )
        self._mask = mask

    def allows(self, token: int) -> bool:
        """Whether a token may come next; without `look`, which answers for all tokens, it is found out for this alone.

        The mask allows a single token where there is one way to go on, though the same text has other tokens too.
        """
        if self._mask is None:
            if forced := self._inner.compute_ff_tokens():
                return token == forced[0] and _bit(self._writable, token)
            return _bit(self._writable, token) and self._inner.validate_tokens([token]) == 1
        return _bit(self._mask, token)

    def narrow(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [V] with those of all tokens that may not come next at minus infinity."""
        allowed = np.unpackbits(self._looked(), count=len(logits), bitorder="little").view(np.bool_)
        return np.where(allowed, logits, np.float32(-np.inf))

    def take(self, token: int) -> None:
        """Go on by a token that `allows` lets through."""
        if not self._inner.consume_token(token):
            raise self._error()
        self._mask = None

    def forced(self, most: int) -> list[int]:
        """The next tokens as far as there is only one way to go on, at most so many."""
        return self._inner.compute_ff_tokens()[:most] if most > 0 else []

    @property
    def complete(self) -> bool:
        """Whether the answer may end here."""
        return self._inner.is_accepting()

    @property
    def over(self) -> bool:
        """Whether nothing may come any more but the end."""
        return self._inner.is_stopped() and self._inner.is_accepting()

    def _looked(self) -> NDArray[np.uint8]:
        self.look()
        assert self._mask is not None
        return self._mask

    def _error(self) -> GarPromptError:
        return GarPromptError(
            f"the {self.structure.kind} is too much to hold an answer to: {_reason(self._inner.get_error())}"
        )


def _bit(mask: NDArray[np.uint8], token: int) -> bool:
    return bool(mask[token >> 3] >> (token & 7) & 1)


def _reason(message: str) -> str:
    """What llguidance's message says, in one line: without its state, and without its drawing of a faulty regex."""
    found = re.search(r"^error: (.+)$", message, re.MULTILINE)
    return found[1] if found else " ".join(message.partition("<state>")[0].split())[:300]
