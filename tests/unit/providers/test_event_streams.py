"""Server-sent events: whole, however the packets are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.providers.streams import MAX_EVENT_BYTES, Event, EventReader, EventTooLong

TEXT = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=40)


def read(*packets: bytes) -> list[Event]:
    reader = EventReader()
    events = [event for packet in packets for event in reader.feed(packet)]
    return [*events, *reader.finish()]


@given(st.lists(TEXT, max_size=6), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.data())
def test_events_survive_any_cut_any_line_end_and_comments(
    texts: list[str], line_end: str, has_comments: bool, data: st.DataObject
) -> None:
    comment = f": alive{line_end}{line_end}" if has_comments else ""
    stream = "".join(f"{comment}data: {text}{line_end}{line_end}" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    packets = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*packets) == [Event(text) for text in texts]


def test_a_character_split_over_packets_stays_whole() -> None:
    whole = "data: 变更 🦀\n\n".encode()
    assert read(*(whole[i : i + 1] for i in range(len(whole)))) == [Event("变更 🦀")]


def test_data_lines_are_joined_and_the_name_belongs_to_its_event() -> None:
    assert read(b"event: ping\ndata: a\ndata:b\n\ndata: c\n\n") == [Event("a\nb", "ping"), Event("c")]


def test_line_separators_inside_the_data_end_no_line() -> None:
    assert read("data: a\u2028b\x0cc\x85d\n\n".encode()) == [Event("a\u2028b\x0cc\x85d")]


def test_a_stream_without_its_last_blank_line_gives_its_last_event() -> None:
    assert read(b"data: [DONE]") == [Event("[DONE]")]


def test_a_byte_order_mark_is_no_part_of_the_first_field() -> None:
    assert read(b"\xef", b"\xbb\xbfdata: a\n\n") == [Event("a")]


def test_fields_that_nobody_asked_for_are_passed_over() -> None:
    assert read(b"id: 7\nretry: 10\nnonsense\ndata: a\n\n") == [Event("a")]


def test_an_event_without_end_is_stopped() -> None:
    reader = EventReader()
    for _ in range(MAX_EVENT_BYTES // 1_000_000):
        reader.feed(b"x" * 1_000_000)
    with pytest.raises(EventTooLong):
        reader.feed(b"x")
