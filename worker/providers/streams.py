"""Server-sent events from bytes, pure: packets in, events out (WHATWG HTML §9.2)."""

from __future__ import annotations

from dataclasses import dataclass

MAX_EVENT_BYTES = 8_000_000
"""An event longer than this is no answer of a model."""


@dataclass(frozen=True, slots=True)
class Event:
    """`name` is the `event:` field ("message" when absent), `data` the `data:` lines joined by line feeds."""

    data: str
    name: str = "message"


class EventTooLong(ValueError):
    """A line or event passed `MAX_EVENT_BYTES`."""


class EventReader:
    """Takes packets cut anywhere (inside a character, between CR and LF) and gives back the events that are whole.

    Lines are found in the bytes and decoded one by one, so a character split over two packets stays whole.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._name = ""
        self._data: list[str] = []
        self._size = 0
        self._skip_line_feed = False
        self._at_start = True

    def feed(self, packet: bytes) -> list[Event]:
        """The events that `packet` completed, in order."""
        events: list[Event] = []
        if self._skip_line_feed and packet:
            packet = packet[1:] if packet[:1] == b"\n" else packet
            self._skip_line_feed = False
        self._rest += packet
        if self._at_start and len(self._rest) >= 3:
            if self._rest.startswith(b"\xef\xbb\xbf"):
                del self._rest[:3]
            self._at_start = False
        start = 0
        while True:
            end = _line_end(self._rest, start)
            if end < 0:
                break
            line = bytes(self._rest[start:end])
            start = end + 1
            if self._rest[end] == 0x0D:
                if start < len(self._rest):
                    start += self._rest[start] == 0x0A
                else:
                    # The line feed that belongs to this carriage return may open the next packet.
                    self._skip_line_feed = True
            event = self._line(line)
            if event:
                events.append(event)
        del self._rest[:start]
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise EventTooLong(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return events

    def finish(self) -> list[Event]:
        """What an ended connection leaves: some servers omit the last blank line."""
        events = self.feed(b"\n") if self._rest else []
        event = self._line(b"")
        return [*events, event] if event else events

    def _line(self, line: bytes) -> Event | None:
        if not line:
            event = Event("\n".join(self._data), self._name or "message") if self._data else None
            self._name, self._data, self._size = "", [], 0
            return event
        if line.startswith(b":"):
            return None
        name, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if name == b"data":
            self._size += len(value)
            self._data.append(value.decode("utf-8", "replace"))
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        return None


def _line_end(buffer: bytearray, start: int) -> int:
    """The first CR or LF from `start`, -1 when there is none."""
    feed = buffer.find(b"\n", start)
    carriage = buffer.find(b"\r", start, feed if feed >= 0 else len(buffer))
    return carriage if carriage >= 0 else feed
