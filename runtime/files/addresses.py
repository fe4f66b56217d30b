"""What users name pictures by: files, `file://`, addresses; and how messages call them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

PICTURES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".jfif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
LONGEST = 300  # characters of one word in a message: beyond this it is data, not a name
_HEAD = 40
_FILE = re.compile(r"file:(//(?:localhost)?)?(?=/)", re.IGNORECASE)
_WEB = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # one slash: a `Path` has swallowed the other
_STREAMS = re.compile(r"(rtsps?|rtmps?|rtp|udp|tcp|srt|mms):", re.IGNORECASE)
_DATA = re.compile(r"data:[\w.+-]*/?[\w.+-]*[;,]", re.IGNORECASE)
_USER = re.compile(r"\b(?!file:)([a-z][\w+.-]+:/{1,2})[^\s/?#'\"]*(?:/[^\s'\"]*)?@(?=[\w\[])", re.IGNORECASE)
_SECRET = re.compile(
    r"((?:pass(?:word|wd)?|pwd|token|secret|api_?key|signature|credential)=)[^&\s#/'\"]+", re.IGNORECASE
)
_HALVED = re.compile(r"\b((?:https?|ftp|s3|gs):)/(?=[^/\s])", re.IGNORECASE)
_INLINE = re.compile(r"(data:[\w.+-]+/[\w.+-]+[;,])\S{9,}", re.IGNORECASE)
_WORD = re.compile(rf"\S{{{LONGEST},}}")


def local_file(name: str) -> str:
    """The path that a `file://` address means; any other name as it is."""
    match = _FILE.match(name)
    return unquote(name[match.end() :]) if match else name


def beside(folder: Path, name: str) -> Path | str:
    """The file that a name within a file of `folder` means; what is no file's name, as it is."""
    return name if not_a_file(name) else folder / local_file(name)


def not_a_file(name: str) -> str | None:
    """What to do about a picture that is named by something else than a file; None for a file's name."""
    if _WEB.match(name):
        return "pictures are not fetched from addresses; download it, and name the file"
    if _DATA.match(name):
        return "a picture written out in the text is not read; save it as a file, and name that"
    return None


def is_web_picture(name: str) -> bool:
    """Whether this is the address of a picture, as far as its end tells, and not of a stream."""
    if not _WEB.match(name) or _STREAMS.match(name):
        return False
    return Path(re.split(r"[?#]", name, maxsplit=1)[0]).suffix.lower() in PICTURES


def shown(text: str) -> str:
    """A name or message fit to be printed: no user or password of an address, and nothing as long as a picture."""
    text = _SECRET.sub(r"\1***", _USER.sub(r"\1***@", _HALVED.sub(r"\1//", text)))
    return _WORD.sub(lambda word: f"{word[0][:_HEAD]}… ({len(word[0])} characters)", _INLINE.sub(r"\1…", text))
