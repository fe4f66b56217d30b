"""What one client may cost, and all of them together."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from gar_edge.runtime.errors import GarPromptError

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes of one request, then of all, then times in seconds.

    body_bytes: of a request's body; values: in its JSON. pixels: of a picture or mask, known before it is decoded.
    mask_pixels: of a request's regions together, at the picture's size, and of the masks that it brings. points: of a
    region. regions: of one request. question: its characters; choices have half as many each. conversation: characters
    of all its turns. tokens, seconds: of an answer, whatever its request says; finding its regions has as many seconds.

    bodies_bytes: of all bodies that are being read or answered. scenes, scene_bytes, scene_seconds: pictures that are
    kept open, how many bytes of them, and how long after their last use. per_key: questions of one key at once; where
    no keys are given there is no such limit. connections: open at once. live: whether questions may go before others.

    header_seconds, body_seconds: until a request's head, and then its body, must be there. room_seconds: that a body
    waits for room among the others. idle_seconds: between two requests of a connection. send_seconds: without a client
    taking what is sent. stop_seconds: for answers in the making once the server is told to stop.
    """

    body_bytes: int = 32 * MIB
    values: int = 200_000
    pixels: int = 50_000_000
    mask_pixels: int = 400_000_000
    points: int = 1000
    regions: int = 64
    question: int = 4000
    conversation: int = 64_000
    tokens: int = 1024
    seconds: float = 60.0

    bodies_bytes: int = 256 * MIB
    scenes: int = 64
    scene_bytes: int = 1024 * MIB
    scene_seconds: float = 600.0
    per_key: int = 32
    connections: int = 512
    live: bool = False

    header_seconds: float = 10.0
    body_seconds: float = 60.0
    room_seconds: float = 10.0
    idle_seconds: float = 15.0
    send_seconds: float = 20.0
    stop_seconds: float = 20.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "live" and not getattr(self, field.name) > 0:
                raise GarPromptError(f"the limit {field.name} must be above 0, not {getattr(self, field.name)}")

    def to_json(self) -> dict[str, float]:
        """What a client should know before it asks."""
        told = ("body_bytes", "pixels", "regions", "question", "tokens", "seconds", "scenes", "scene_seconds")
        return {name: value for name, value in asdict(self).items() if name in told}
