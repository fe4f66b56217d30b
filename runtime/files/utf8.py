"""Files by names that libraries written in C++ take: UTF-8, which Linux does not ask of a name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def utf8_name(path: Path) -> Iterator[Path]:
    """The file itself, or a way to it through a link in a scratch folder, for as long as it is being opened.

    Files beside it are beside what is given, too, unless its own last name is what cannot be said in UTF-8.
    """
    if is_utf8(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="gar-edge-") as scratch:
        link = Path(scratch) / "link"
        if is_utf8(path.name):
            link.symlink_to(path.parent.absolute(), target_is_directory=True)
            yield link / path.name
        else:
            link = link.with_suffix(path.suffix if is_utf8(path.suffix) else "")
            link.symlink_to(path.absolute())
            yield link


def is_utf8(name: str) -> bool:
    """Whether nothing of it stands for bytes that could not be decoded."""
    return not any("\ud800" <= one <= "\udfff" for one in name)
