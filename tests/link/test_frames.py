"""The codec of the link: any bytes in any pieces give the same frames, or a LinkError."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jupyter_agents.errors import LinkError
from jupyter_agents.link.frames import (
    APART_BYTES,
    HEAD_BYTES,
    FrameReader,
    Kind,
    pack_numbers,
    pack_object,
    pack_with_object,
    packed,
    unpack_object,
    unpack_with_object,
)
from tests.link.fakes import head

FRAMES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=200)), max_size=12
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def joined(frames):
    """The bytes of frames, one behind the other."""
    return b"".join(head(kind, number, len(body)) + body for kind, number, body in frames)


def pour(reader, chunk):
    """Give bytes as a BufferedProtocol's transport does: as many as fit, again and again."""
    frames = []
    while chunk:
        space = reader.space()
        assert len(space) > 0
        taken = min(len(space), len(chunk))
        space[:taken] = chunk[:taken]
        frames += reader.filled(taken)
        chunk = chunk[taken:]
    return frames


def test_layout_of_a_frame():
    """Length of what follows, kind, number, payload: big-endian, nine bytes of head."""
    assert HEAD_BYTES == 9
    assert head(Kind.TEXT, 0x01020304, 5) == bytes.fromhex("0000000a 01 01020304")


@pytest.mark.parametrize("kind", list(Kind))
def test_kinds_fit_a_byte(kind):
    """Every kind survives the way."""
    assert FrameReader(10).feed(head(kind, 7, 2) + b"ab") == [(kind, 7, b"ab")]


def test_kinds_differ():
    """No two kinds share a number, so that none shadows another."""
    assert len({int(kind) for kind in Kind}) == len(Kind.__members__)


@pytest.mark.parametrize("count", range(1, HEAD_BYTES))
def test_claimed_length_takes_no_memory(count):
    """A length is believed only with the whole head: four bytes do not make 4 GiB be allocated."""
    reader = FrameReader(100, 16)
    assert reader.feed(b"\xff" * count) == []
    assert len(reader.space()) == 16 - count
    with pytest.raises(LinkError):
        reader.feed(b"\xff" * (HEAD_BYTES - count))


@given(FRAMES, st.lists(st.integers(1, 300), max_size=30), st.sampled_from([9, 16, 64, 4096]))
@example([(1, 0, b"x" * 200), (2, 1, b"")], [9, 9, 100], 16)
@example([(1, 1, b"x" * 7), (1, 2, b"y" * 100), (1, 3, b"")], [10, 20, 30, 1], 16)
def test_pieces_do_not_matter(frames, cuts, buffer_bytes):
    """However the bytes are cut, and however small the buffer, the same frames come out."""
    data, reader, found = joined(frames), FrameReader(200, buffer_bytes), []
    for size in cuts:
        found += pour(reader, data[:size])
        data = data[size:]
    assert found + reader.feed(data) == frames


@given(FRAMES)
def test_frames_come_as_soon_as_they_are_whole(frames):
    """After each frame's last byte, and not before, it is there."""
    reader = FrameReader(200, 32)
    for frame in frames:
        data = joined([frame])
        assert reader.feed(data[:-1]) == []
        assert reader.feed(data[-1:]) == [frame]


def test_payload_is_a_copy():
    """A frame keeps its bytes while the buffer is written again."""
    reader = FrameReader(100, 32)
    [(_, _, first)] = reader.feed(joined([(1, 1, b"first")]))
    reader.feed(joined([(1, 2, b"later")]))
    assert first == b"first"
    assert type(first) is bytes


@pytest.mark.parametrize("size", [0, 1, 100])
def test_limit_itself_passes(size):
    """A payload of exactly the limit is a frame."""
    assert FrameReader(100).feed(joined([(1, 1, b"x" * size)])) == [(1, 1, b"x" * size)]


@pytest.mark.parametrize(
    "data",
    [
        head(1, 1, 101),
        head(1, 1, 2**32 - 6),
        struct.pack(">IBI", 0, 1, 1),
        struct.pack(">IBI", 4, 1, 1),
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_impossible_lengths_are_errors(data):
    """Too long or too short a length is an error before a byte of it is waited for."""
    with pytest.raises(LinkError, match="limit is"):
        FrameReader(100).feed(data)


def test_large_frame_has_a_buffer_of_its_own():
    """A frame larger than the standing buffer is read straight, then the standing one is back."""
    reader = FrameReader(10_000, 64)
    assert reader.feed(head(2, 1, 5000)) == []
    assert len(reader.space()) == 5000
    assert pour(reader, b"z" * 5000) == [(2, 1, b"z" * 5000)]
    assert len(reader.space()) == 64


def test_reading_is_linear():
    """A frame of a megabyte that comes in crumbs is copied a few times, not a thousand times."""
    reader = FrameReader(2**20, 4096)
    data = joined([(1, 1, b"x" * 2**20)])
    sizes = set()
    for start in range(0, len(data), 1000):
        sizes.add(id(reader.space().obj))
        reader.feed(data[start : start + 1000])
    assert len(sizes) <= 3


@given(st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_numbers_are_packed(numbers):
    """Recipients are little-endian, four bytes each, as the relay unpacks them."""
    packed = pack_numbers(numbers)
    assert list(struct.unpack(f"<{len(numbers)}I", packed)) == numbers


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_objects_survive(value):
    """What JSON can say comes back equal, lone surrogates and all."""
    assert unpack_object(pack_object(value)) == json.loads(json.dumps(value))


@given(st.dictionaries(st.text(), JSON, max_size=3), st.binary(max_size=100))
def test_objects_with_bytes_survive(value, body):
    """The bytes behind an object are untouched, whatever they are."""
    got, rest = unpack_with_object(pack_with_object(value, body))
    assert (got, rest) == (json.loads(json.dumps(value)), body)


@pytest.mark.parametrize(
    "payload", [b"", b"null", b"[]", b"1", b'"x"', b"{", b"\xff", b"[" * 100_000, b"{}x"]
)
def test_what_is_no_object_is_an_error(payload):
    """A control frame that is not one JSON object is a LinkError, however it is broken."""
    with pytest.raises(LinkError):
        unpack_object(payload)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00\x00\x00", b"\x00\x00\x00\x03{}", b"\xff\xff\xff\xff{}", b"\0\0\0\x02[]"],
)
def test_what_is_no_object_with_bytes_is_an_error(payload):
    """The same for an object with bytes behind it: too short, cut off, or no object."""
    with pytest.raises(LinkError):
        unpack_with_object(payload)


@given(st.binary(max_size=300), st.sampled_from([9, 64]))
def test_garbage_is_frames_or_an_error(data, buffer_bytes):
    """Any bytes give frames or a LinkError, and never make the reader ask for more room."""
    reader = FrameReader(50, buffer_bytes)
    try:
        frames = reader.feed(data)
    except LinkError:
        return
    assert joined(frames) == data[: len(joined(frames))]
    assert len(reader.space()) <= max(64, 50 + HEAD_BYTES)


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ([3], [12]),
        ([3, 0, 3], [33]),
        ([APART_BYTES - 1], [9 + APART_BYTES - 1]),
        ([APART_BYTES, 3], [9, APART_BYTES, 12]),
        ([3, APART_BYTES, APART_BYTES], [21, APART_BYTES, 9, APART_BYTES]),
    ],
)
def test_large_payloads_are_written_by_themselves(sizes, wanted):
    """What is small is joined, what is large is not copied, and the order is kept."""
    frames = [(Kind.TEXT, index, bytes([index]) * size) for index, size in enumerate(sizes)]
    written = list(packed(frames))
    assert [len(data) for data in written] == wanted
    assert FrameReader(1 << 20).feed(b"".join(written)) == frames
    payloads = [payload for _, _, payload in frames]
    assert all(data in payloads for data in written if len(data) == APART_BYTES)
