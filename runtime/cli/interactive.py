"""`gar-run --interactive`: one question after another about the same picture."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from gar_edge.runtime.cli.terminal import Interrupted
from gar_edge.runtime.errors import GarError, GarPromptError
from gar_edge.runtime.files.paths import home
from gar_edge.runtime.images.shape import Mask, pixel_box

HELP = """\
A question names its regions as <Prompt0>, <Prompt1>, …
:describe [K]  describe region K
:regions       list the regions
:help          this list
:quit          leave; so do Ctrl-D and Ctrl-C. Ctrl-C during an answer ends the answer"""
_NAMED = re.compile(r"<Prompt(\d{1,9})>")
_HISTORY_LINES = 1000


@dataclass(frozen=True)
class Dialogue:
    """A conversation about one picture.

    regions: masks [H,W] by number, as many as there are. ask: answers about some of them, and shows the answer; None
    asks for a description. prompts: how many the model takes in one question; it names them from 0 on.
    """

    regions: Mapping[int, Mask]
    ask: Callable[[str | None, Mapping[int, Mask], threading.Event], None]
    prompts: int

    def run(self) -> None:
        """Take lines from stdin until it ends, `:quit` or Ctrl-C; an error ends its question alone."""
        try:
            for line in _typed():
                if line == ":quit":
                    return
                if line:
                    self._handle(line)
        except Interrupted:
            print()

    def _handle(self, line: str) -> None:
        try:
            if line.startswith(":"):
                self._command(*line[1:].split())
            else:
                named = {int(number) for number in _NAMED.findall(line)}
                own = [number for number in self.regions if number in named]
                self._answer(line, own + sorted(named.difference(own)))
        except GarError as error:
            print(f"error: {error}", file=sys.stderr)

    def _command(self, name: str = "", *arguments: str) -> None:
        if name == "help" and not arguments:
            print(HELP, flush=True)
        elif name == "regions" and not arguments:
            for number, mask in sorted(self.regions.items()):
                print(_outline(number, mask), flush=True)
        elif name == "describe" and len(arguments) <= 1 and all(one.isdecimal() for one in arguments):
            self._answer(None, [int(one) for one in arguments] or sorted(self.regions)[:1])
        else:
            raise GarPromptError(f":{' '.join((name, *arguments))} is no command; :help lists them")

    def _answer(self, question: str | None, numbers: list[int]) -> None:
        missing = [number for number in numbers if number not in self.regions]
        if missing:
            known = ", ".join(map(str, sorted(self.regions)))
            raise GarPromptError(f"there is no region {missing[0]}; there are {known}")
        if not numbers:
            raise GarPromptError(f"the question names no region; say which, e.g. <Prompt{min(self.regions)}>")
        if len(numbers) > self.prompts:
            raise GarPromptError(
                f"the question names {len(numbers)} regions; the model takes at most {self.prompts} at once"
            )
        named = self._within_reach(numbers)
        if question is not None:
            question = _NAMED.sub(lambda match: f"<Prompt{named[int(match[1])]}>", question)
        with _interrupts_set(threading.Event()) as cancel:
            self.ask(question, {named[number]: self.regions[number] for number in numbers}, cancel)

    def _within_reach(self, numbers: list[int]) -> dict[int, int]:
        """The numbers by which the model knows these regions: their own where it can, else free ones, said aloud."""
        free = (number for number in range(self.prompts) if number not in numbers)
        named = {number: number if number < self.prompts else next(free) for number in numbers}
        for number, other in named.items():
            if number != other:
                print(f"(<Prompt{number}> is asked about as <Prompt{other}>)", file=sys.stderr)
        return named


def _outline(number: int, mask: Mask) -> str:
    box = ",".join(map(str, pixel_box(mask)))
    return f"<Prompt{number}>  {box}  {100 * mask.mean():.1f} % of the picture"


def _typed() -> Iterator[str]:
    """Lines of stdin, stripped; edited and remembered where somebody types them."""
    if not sys.stdin.isatty():
        yield from (line.decode("utf-8", "replace").strip() for line in sys.stdin.buffer)
        return
    with _history():
        while True:
            try:
                yield input("> ").strip()
            except EOFError:
                print()
                return


@contextmanager
def _history() -> Iterator[None]:
    """Arrow keys and earlier sessions' questions, where Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = home() / "history"
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)


@contextmanager
def _interrupts_set(event: threading.Event) -> Iterator[threading.Event]:
    """Ctrl-C sets the event instead of ending the program."""

    def note(number: int, frame: FrameType | None) -> None:
        event.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
