"""Streaming text: whole characters, stop texts, nothing lost."""

import pytest
from tokenizers import Tokenizer

from gar_edge.models.sizes import SpecialTokens
from gar_edge.models.standin import byte_tokenizer
from gar_edge.runtime.generate.text import TextStream

SPECIAL = SpecialTokens(256)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_tokenizer(SPECIAL)


def ids(tokenizer: Tokenizer, raw: bytes) -> list[int]:
    """One token a byte, valid UTF-8 or not: byte-level alphabets map byte b to a letter of its own."""
    letters = {b: chr(b) for b in [*range(33, 127), *range(161, 173), *range(174, 256)]}
    rest = [b for b in range(256) if b not in letters]
    letters |= {b: chr(256 + i) for i, b in enumerate(rest)}
    return [tokenizer.token_to_id(letters[b]) for b in raw]


def stream(tokenizer: Tokenizer, tokens: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    text = TextStream(tokenizer, stop)
    pieces = []
    for token in tokens:
        pieces.append(text.push(token))
        if text.stopped:
            break
    return [*pieces, text.finish()]


@pytest.mark.parametrize("text", ["plain", "naïve café", "机器人 🤖 ok", "👩‍👩‍👧", "", " \n\t x"])
def test_pieces_join_to_the_text_and_never_split_a_character(tokenizer: Tokenizer, text: str) -> None:
    pieces = stream(tokenizer, ids(tokenizer, text.encode()))
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize(
    "raw", [b"a\xff b", b"\xe2\x82", b"\xf0\x9f\x92 x", b"\x80\x80\x80 ok", b"ok \xc3", b"\xed\xa0\x80!"]
)
def test_invalid_bytes_end_as_the_tokenizer_decodes_them(tokenizer: Tokenizer, raw: bytes) -> None:
    tokens = ids(tokenizer, raw)
    assert "".join(stream(tokenizer, tokens)) == tokenizer.decode(tokens, skip_special_tokens=True)


def test_special_tokens_are_not_text(tokenizer: Tokenizer) -> None:
    tokens = [*ids(tokenizer, b"a"), SPECIAL.image, *ids(tokenizer, b"b"), SPECIAL.end_of_turn]
    assert "".join(stream(tokenizer, tokens)) == "ab"


def test_text_comes_as_soon_as_it_is_certain(tokenizer: Tokenizer) -> None:
    pieces = stream(tokenizer, ids(tokenizer, "é!".encode()), stop=("!!",))
    assert pieces == ["", "é", "", "!"]


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one. two. three", (". ",), "one"),
        ("aaab", ("aab",), "a"),
        ("abcabd", ("abd",), "abc"),
        ("no stop here", ("stop!",), "no stop here"),
        ("stop", ("stop",), ""),
        ("x END y STOP z", ("STOP", "END"), "x "),
        ("grün 🤖", ("🤖",), "grün "),
    ],
)
def test_stop_texts(tokenizer: Tokenizer, text: str, stop: tuple[str, ...], expected: str) -> None:
    assert "".join(stream(tokenizer, ids(tokenizer, text.encode()), stop)) == expected
