"""Bags of ROS 1 and ROS 2, read by rosbags (the extra `bags`): topics, and their messages as objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from gar_edge.runtime.errors import GarError, GarImageError
from gar_edge.runtime.images.loading import printable
from gar_edge.runtime.recordings import detections

SUFFIXES = frozenset({".bag", ".db3", ".mcap"})
METADATA = "metadata.yaml"  # of a folder that rosbag2 wrote
REMEDY = "reading bags needs rosbags: pip install 'gar-edge[bags]'"


def names_recording(source: str) -> bool:
    """Whether this is called like a bag: a file, or a folder that rosbag2 wrote."""
    path = Path(source)
    return path.suffix.lower() in SUFFIXES or (path / METADATA).is_file()


@dataclass(frozen=True)
class Topic:
    """type: as ROS 2 writes it, such as "sensor_msgs/msg/Image"; messages: how many there are, as the bag says."""

    name: str
    type: str
    messages: int

    def __str__(self) -> str:
        return f"{printable(self.name)} ({printable(self.type)}, {self.messages})"


@dataclass(frozen=True)
class Message:
    """A message as it was recorded: `logged` is when, in nanoseconds, by the recorder's clock."""

    topic: str
    logged: int
    raw: bytes


class Bag:
    """A context manager; `GarImageError`, which names the bag, for whatever is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.name = printable(str(path))
        self._path = path
        self._reader: Any = None
        self._stores: dict[str, Sequence[Any]] = {}

    def __enter__(self) -> Bag:
        if not self._path.exists():
            raise GarImageError(f"{self.name}: no such bag")
        try:
            from rosbags import rosbag1, rosbag2
        except ImportError:
            raise GarImageError(f"{self.name}: {REMEDY}") from None
        with self._named("cannot be read"):
            reader = rosbag1.Reader if self._path.suffix.lower() == ".bag" else rosbag2.Reader
            opened: Any = reader(self._path)
            opened.open()
        self._reader = opened
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    @property
    def is_ros2(self) -> bool:
        return self._path.suffix.lower() != ".bag"

    @property
    def topics(self) -> Mapping[str, Topic]:
        """By name; several connections of one topic are one."""
        found: dict[str, Topic] = {}
        for one in self._reader.connections:
            before = found[one.topic].messages if one.topic in found else 0
            found[one.topic] = Topic(one.topic, one.msgtype, before + one.msgcount)
        return found

    def topic(self, name: str | None, types: Sequence[str], what: str) -> Topic:
        """A topic of one of these types; without a name the only one there is."""
        topics = self.topics
        fitting = [topic for topic in topics.values() if topic.type in types]
        if name is None:
            if len(fitting) == 1:
                return fitting[0]
            there = ", ".join(map(str, fitting or topics.values())) or "none"
            why = f"{len(fitting)} topics have {what}, say which" if fitting else f"no topic has {what}"
            raise GarImageError(f"{self.name}: {why}; there are: {there}")
        if name not in topics:
            there = ", ".join(map(str, topics.values())) or "none"
            raise GarImageError(f"{self.name}: no topic {printable(name)}; there are: {there}")
        if topics[name].type not in types:
            raise GarImageError(f"{self.name}: {topics[name]} has no {what}; its type must be {' or '.join(types)}")
        return topics[name]

    def messages(self, topics: Sequence[str]) -> Iterator[Message]:
        """Of these topics, in the order in which they were recorded."""
        connections = [one for one in self._reader.connections if one.topic in topics]
        if not connections:
            return
        with self._named("is damaged or cut short"):
            for connection, logged, raw in self._reader.messages(connections=connections):
                yield Message(connection.topic, logged, raw)

    def decode(self, message: Message) -> Any:
        """The message's fields, by the definition in the bag; where it has none, by ROS' own."""
        topic = self.topics[message.topic]
        if message.topic not in self._stores:
            with self._named(f"{topic} has a definition that cannot be read"):
                self._stores[message.topic] = self._definitions(topic)
        failure: Exception | None = None
        for store in self._stores[message.topic]:
            try:
                deserialize = store.deserialize_cdr if self.is_ros2 else store.deserialize_ros1
                decoded = deserialize(message.raw, topic.type)
            except Exception as error:  # a message of another version, or cut short
                failure = error
            else:
                self._stores[message.topic] = (store,)
                return decoded
        raise GarImageError(f"{self.name}: a message of {topic} cannot be read ({_reason(failure)})") from None

    def _definitions(self, topic: Topic) -> Sequence[Any]:
        """Type stores by which the topic's messages may be read."""
        from rosbags.interfaces import MessageDefinitionFormat
        from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

        (connection, *_) = [one for one in self._reader.connections if one.topic == topic.name]
        written = connection.msgdef
        if written.format == MessageDefinitionFormat.MSG:
            store = get_typestore(Stores.EMPTY)
            store.register(get_types_from_msg(written.data, topic.type))
            return (store,)
        if written.format == MessageDefinitionFormat.IDL:
            store = get_typestore(Stores.EMPTY)
            for part in written.data.split("=" * 80 + "\n"):
                header, _, body = part.partition("\n")
                if part.strip():
                    store.register(get_types_from_idl(body if header.startswith("IDL: ") else part))
            return (store,)
        if topic.type != detections.TYPE:
            return (get_typestore(Stores.ROS2_HUMBLE),)
        stores = []
        for definitions in detections.DEFINITIONS:
            store = get_typestore(Stores.ROS2_HUMBLE)
            for name, fields in definitions.items():
                store.register(get_types_from_msg(fields, name))
            stores.append(store)
        return stores

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        """Whatever rosbags raises becomes an error with the bag's name."""
        try:
            yield
        except (GarError, GeneratorExit):
            raise
        except Exception as error:  # its readers raise whatever comes to them where a file is damaged
            raise GarImageError(f"{self.name}: {what} ({_reason(error)})") from None


def _reason(error: Exception | None) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__
