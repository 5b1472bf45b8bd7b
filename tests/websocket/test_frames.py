"""The frame parser and the compression, without a socket."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_agents.errors import RemoteProtocolError
from jupyter_agents.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Deflate,
    FrameParser,
    close_payload,
    encode_frame,
    negotiate,
    read_close,
)

LIMIT = 1 << 20
Event = tuple[int, bytes]


def client_frame(
    payload: bytes,
    opcode: int = TEXT,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes = b"\x01\xfe\x33\x80",
) -> bytes:
    """One masked frame; written apart from the code under test, byte by byte."""
    first = (0x80 if fin else 0) | rsv | opcode
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def parsed(data: bytes, *, limit: int = LIMIT, deflate: Deflate | None = None) -> list[Event]:
    """All events of one read."""
    return list(FrameParser(limit, deflate).feed(data))


def refusal(data: bytes, *, limit: int = LIMIT, deflate: Deflate | None = None) -> int:
    """The close code with which the parser refuses."""
    with pytest.raises(RemoteProtocolError) as caught:
        parsed(data, limit=limit, deflate=deflate)
    return caught.value.close_code


class TestEncoding:
    @pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
    def test_length_takes_the_fewest_bytes(self, size):
        """A payload up to 125 bytes has a head of 2, up to 65535 of 4, above of 10."""
        head = 2 if size < 126 else 4 if size < 65536 else 10
        frame = encode_frame(b"x" * size, BINARY)
        assert len(frame) == head + size
        assert frame[0] == 0x82
        assert frame[1] == min(size, 126 if size < 65536 else 127)
        assert int.from_bytes(frame[2:head], "big") == (size if head > 2 else 0)
        assert frame[head:] == b"x" * size

    def test_flags_are_the_first_bits(self):
        """FIN is the first bit and RSV1 the second."""
        assert encode_frame(b"", TEXT, fin=False)[0] == 0x01
        assert encode_frame(b"", TEXT, rsv1=True)[0] == 0xC1


class TestMessages:
    @pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
    def test_every_length_is_read(self, size):
        """A message comes out as it went in, however its length is written."""
        payload = os.urandom(size)
        assert parsed(client_frame(payload, BINARY)) == [(BINARY, payload)]

    def test_many_frames_in_one_read(self):
        """Frames that arrive together come out in order, with a control frame among them."""
        data = b"".join([client_frame(b"a"), client_frame(b"p", PING), client_frame(b"b", BINARY)])
        assert parsed(data) == [(TEXT, b"a"), (PING, b"p"), (BINARY, b"b")]

    def test_what_waits_of_a_long_read_is_not_taken_apart(self):
        """Who is paused at the first of many messages holds little more than what was read."""
        data = client_frame(b"hi") * 30_000
        parser = FrameParser(LIMIT)
        tracemalloc.start()
        try:
            events = parser.feed(data)
            assert next(events) == (TEXT, b"hi")
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 2 * len(data)
        assert sum(1 for _ in events) == 29_999

    def test_fragments_are_joined_around_control_frames(self):
        """A message in fragments is one message; control frames between them come out at once."""
        data = b"".join(
            [
                client_frame(b"one ", TEXT, fin=False),
                client_frame(b"!", PONG),
                client_frame(b"", CONTINUATION, fin=False),
                client_frame(b"two", CONTINUATION),
                client_frame(b"next", TEXT),
            ]
        )
        assert parsed(data) == [(PONG, b"!"), (TEXT, b"one two"), (TEXT, b"next")]

    def test_character_may_be_cut_by_fragments(self):
        """UTF-8 is judged over the whole message, not per fragment."""
        euro = "€".encode()
        data = client_frame(euro[:1], fin=False) + client_frame(euro[1:], CONTINUATION)
        assert parsed(data) == [(TEXT, euro)]

    def test_nothing_follows_a_close_frame(self):
        """What a client sends behind its close frame is not looked at."""
        data = client_frame(b"", CLOSE) + client_frame(b"late") + b"\xff\xff"
        assert parsed(data) == [(CLOSE, b"")]

    def test_what_came_before_an_error_comes_out_first(self):
        """A broken frame does not swallow the good ones of the same read."""
        events = FrameParser(LIMIT).feed(client_frame(b"good") + b"\x83\x80")
        assert next(events) == (TEXT, b"good")
        with pytest.raises(RemoteProtocolError):
            next(events)


BROKEN = {
    "RSV1 without agreement": client_frame(b"", rsv=0x40),
    "RSV2": client_frame(b"", rsv=0x20),
    "RSV3 on a control frame": client_frame(b"", PING, rsv=0x10),
    "opcode 3": client_frame(b"", 3),
    "opcode 7 in fragments": client_frame(b"", 7, fin=False),
    "opcode 11": client_frame(b"", 11),
    "opcode 15": client_frame(b"", 15),
    "not masked": encode_frame(b"", TEXT),
    "long and not masked": encode_frame(b"x" * 300, BINARY)[:2],
    "control frame of 126 bytes": client_frame(b"x" * 126, PING)[:2],
    "fragmented ping": client_frame(b"", PING, fin=False),
    "fragmented close": client_frame(b"", CLOSE, fin=False),
    "continuation of nothing": client_frame(b"", CONTINUATION),
    "continuation after the end": client_frame(b"a", fin=False)
    + client_frame(b"b", CONTINUATION)
    + client_frame(b"c", CONTINUATION),
    "text within fragments": client_frame(b"a", fin=False) + client_frame(b"b"),
    "binary within fragments": client_frame(b"a", fin=False) + client_frame(b"b", BINARY),
}


class TestRefusals:
    @pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
    def test_broken_frame_is_1002(self, data):
        """RFC 6455 section 5: a frame that must not be is refused with 1002."""
        assert refusal(data) == 1002

    @pytest.mark.parametrize("data", [b"\x83\x80", b"\x01\x00", b"\x89\xfe", b"\x09\x80"])
    def test_two_bytes_are_enough_to_refuse(self, data):
        """A bad head is refused before mask and body arrive."""
        assert refusal(data) == 1002

    @pytest.mark.parametrize("text", [b"\xff", b"ok\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
    def test_text_that_is_not_utf8_is_1007(self, text):
        """Bad bytes, a cut character, a surrogate and a character past the last are refused."""
        assert refusal(client_frame(text)) == 1007
        assert refusal(client_frame(text, fin=False) + client_frame(b"", CONTINUATION)) == 1007

    def test_bad_fragment_is_refused_before_the_last(self):
        """A long broken text is not collected to its end."""
        assert refusal(client_frame(b"a\xffb", fin=False)) == 1007

    def test_binary_may_be_anything(self):
        """Only texts must be UTF-8."""
        data = client_frame(b"\xff", BINARY, fin=False) + client_frame(b"\xfe", CONTINUATION)
        assert parsed(data) == [(BINARY, b"\xff\xfe")]


class TestSizes:
    def test_limit_itself_is_allowed(self):
        """A message of exactly the limit passes, in one frame or in several."""
        assert parsed(client_frame(b"x" * 300), limit=300) == [(TEXT, b"x" * 300)]
        halves = client_frame(b"x" * 150, fin=False) + client_frame(b"y" * 150, CONTINUATION)
        assert parsed(halves, limit=300) == [(TEXT, b"x" * 150 + b"y" * 150)]

    @pytest.mark.parametrize("size", [301, 70000])
    def test_one_more_is_1009_on_the_head(self, size):
        """The length in the head is enough; no byte of the body needs to come."""
        head = client_frame(b"x" * size)[: 4 if size < 65536 else 10]
        assert refusal(head + b"mask", limit=300) == 1009

    def test_fragments_count_together(self):
        """The head of the fragment that would pass the limit is refused."""
        data = client_frame(b"x" * 200, fin=False) + client_frame(b"x" * 101, CONTINUATION)[:6]
        assert refusal(data, limit=300) == 1009

    def test_absurd_length_is_1009(self):
        """A length of eight bytes is compared, not allocated."""
        assert refusal(b"\x82\xff" + b"\xff" * 8 + b"mask") == 1009

    def test_control_frames_do_not_count(self):
        """A ping between fragments passes even when the message is full."""
        data = client_frame(b"x" * 10, fin=False) + client_frame(b"p" * 20, PING)
        assert parsed(data, limit=10) == [(PING, b"p" * 20)]


class TestClose:
    def test_empty_is_1005(self):
        """A close frame without a code reads as 1005."""
        assert read_close(b"") == (1005, "")

    def test_code_and_reason(self):
        """Code and reason are read."""
        assert read_close(b"\x0f\xa1" + "tschüß".encode()) == (4001, "tschüß")

    @pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
    def test_illegal_code_is_1002(self, code):
        """Codes that must not be on the wire are refused."""
        with pytest.raises(RemoteProtocolError) as caught:
            read_close(code.to_bytes(2, "big"))
        assert caught.value.close_code == 1002

    def test_half_a_code_is_1002(self):
        """A close frame of one byte is refused."""
        with pytest.raises(RemoteProtocolError) as caught:
            read_close(b"\x03")
        assert caught.value.close_code == 1002

    def test_bad_reason_is_1007(self):
        """A reason that is not UTF-8 is refused."""
        with pytest.raises(RemoteProtocolError) as caught:
            read_close(b"\x03\xe8\xff")
        assert caught.value.close_code == 1007

    @pytest.mark.parametrize("code", [None, 1005])
    def test_no_code_is_an_empty_frame(self, code):
        """1005 is never written."""
        assert close_payload(code, "ignored") == b""

    def test_long_reason_is_cut_between_characters(self):
        """A reason keeps at most 123 bytes and stays UTF-8."""
        body = close_payload(1000, "ü" * 100)
        assert len(body) <= 125
        assert read_close(body) == (1000, "ü" * 61)


# A stream of legal frames, and the events that it must give.
_control = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
_payload = st.one_of(st.binary(max_size=200), st.binary(min_size=65500, max_size=65600))
_message = st.one_of(
    st.tuples(st.just(TEXT), st.text(max_size=60).map(str.encode)),
    st.tuples(st.just(BINARY), _payload),
)


@st.composite
def _streams(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    data, events = [], []
    for opcode, payload in draw(st.lists(_message, max_size=5)):
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for i, part in enumerate(parts):
            mask = draw(st.binary(min_size=4, max_size=4))
            code = CONTINUATION if i else opcode
            data.append(client_frame(part, code, fin=i == len(parts) - 1, mask=mask))
            if i == len(parts) - 1:
                events.append((opcode, payload))
            for control, body in draw(st.lists(_control, max_size=1)):
                data.append(client_frame(body, control, mask=mask))
                events.append((control, body))
    return b"".join(data), events


class TestAnySplit:
    @settings(max_examples=60, deadline=None)
    @given(_streams(), st.data())
    def test_split_does_not_matter(self, stream, data):
        """The same bytes give the same events, however the network cuts them."""
        wire, expected = stream
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
        parser, events = FrameParser(LIMIT), []
        for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            events += parser.feed(wire[a:b])
        assert events == expected

    def test_byte_by_byte(self):
        """One byte per read is the worst split of all."""
        wire = client_frame(b"x" * 300, BINARY) + client_frame(b"p", PING) + client_frame(b"end")
        parser, events = FrameParser(LIMIT), []
        for i in range(len(wire)):
            events += parser.feed(wire[i : i + 1])
        assert events == [(BINARY, b"x" * 300), (PING, b"p"), (TEXT, b"end")]

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4), st.booleans())
    def test_noise_is_parsed_or_refused(self, wire, cuts, compressed):
        """No bytes whatever raise anything but a protocol error, and the split changes nothing."""

        def outcome(pieces: list[bytes]) -> tuple[list[Event], int]:
            parser, events = FrameParser(1000, Deflate() if compressed else None), []
            try:
                for piece in pieces:
                    for event in parser.feed(piece):
                        events.append(event)
                        if event[0] == CLOSE:
                            return events, 0
            except RemoteProtocolError as error:
                return events, error.close_code
            return events, 0

        edges = sorted(min(cut, len(wire)) for cut in cuts)
        pieces = [wire[a:b] for a, b in zip([0, *edges], [*edges, len(wire)], strict=True)]
        assert outcome(pieces) == outcome([wire])


def deflated(payload: bytes) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (squeeze.compress(payload) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]


class TestDeflate:
    def test_compressed_message_is_inflated(self):
        """RSV1 on the first frame says that the message is compressed, over all its fragments."""
        body = deflated(b"hello " * 50)
        data = client_frame(body, rsv=0x40) + client_frame(b"plain")
        data += client_frame(body[:5], BINARY, fin=False, rsv=0x40)
        data += client_frame(body[5:], CONTINUATION)
        assert parsed(data, deflate=Deflate()) == [
            (TEXT, b"hello " * 50),
            (TEXT, b"plain"),
            (BINARY, b"hello " * 50),
        ]

    @pytest.mark.parametrize("window_bits", [9, 15])
    def test_what_is_compressed_can_be_inflated(self, window_bits):
        """A client with the agreed window reads what we send, each message by itself."""
        payload = os.urandom(3000) * 3
        body = Deflate(window_bits=window_bits).compress(payload)
        inflate = zlib.decompressobj(-window_bits)
        assert inflate.decompress(body + b"\x00\x00\xff\xff") == payload

    @pytest.mark.parametrize("opcode", [PING, CLOSE])
    def test_control_frame_is_never_compressed(self, opcode):
        """RSV1 on a control frame stays an error."""
        assert refusal(client_frame(b"", opcode, rsv=0x40), deflate=Deflate()) == 1002

    def test_continuation_has_no_rsv1(self):
        """RSV1 belongs on the first fragment only."""
        data = client_frame(b"", fin=False, rsv=0x40) + client_frame(b"", CONTINUATION, rsv=0x40)
        assert refusal(data, deflate=Deflate()) == 1002

    def test_bomb_is_1009(self):
        """A small frame that inflates past the limit is refused."""
        bomb = deflated(bytes(50_000_000))
        assert len(bomb) < 60_000
        assert (
            refusal(client_frame(bomb, BINARY, rsv=0x40), limit=100_000, deflate=Deflate()) == 1009
        )

    def test_message_of_exactly_the_limit_passes(self):
        """The limit itself is no bomb."""
        data = client_frame(deflated(b"x" * 1000), rsv=0x40)
        assert parsed(data, limit=1000, deflate=Deflate()) == [(TEXT, b"x" * 1000)]
        assert refusal(data, limit=999, deflate=Deflate()) == 1009

    def test_garbage_is_1002(self):
        """What is not deflate data is refused."""
        assert refusal(client_frame(b"\xff\xff\xff", rsv=0x40), deflate=Deflate()) == 1002

    def test_inflated_text_must_be_utf8(self):
        """The text is judged as it is after inflating."""
        assert refusal(client_frame(deflated(b"\xff"), rsv=0x40), deflate=Deflate()) == 1007


NO_TAKEOVER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


class TestNegotiation:
    @pytest.mark.parametrize(
        ("offer", "answer"),
        [
            ("permessage-deflate", NO_TAKEOVER),
            ("permessage-deflate; client_max_window_bits", NO_TAKEOVER),
            ("permessage-deflate; client_max_window_bits=10", NO_TAKEOVER),
            ("permessage-deflate;server_no_context_takeover", NO_TAKEOVER),
            ("x-other; a=1, permessage-deflate", NO_TAKEOVER),
            (
                "permessage-deflate; server_max_window_bits=10",
                NO_TAKEOVER + "; server_max_window_bits=10",
            ),
            (
                'permessage-deflate; server_max_window_bits="9"',
                NO_TAKEOVER + "; server_max_window_bits=9",
            ),
            ("permessage-deflate; server_max_window_bits=8, permessage-deflate", NO_TAKEOVER),
        ],
    )
    def test_first_offer_that_can_be_met(self, offer, answer):
        """The answer never keeps context, and has a window only where the client asked for one."""
        agreed = negotiate(offer, Deflate())
        assert agreed is not None
        assert agreed[1] == answer

    def test_window_is_the_smaller_of_both(self):
        """The client's window binds what we send."""
        agreed = negotiate("permessage-deflate; server_max_window_bits=10", Deflate())
        assert agreed is not None
        assert agreed[0] == Deflate(window_bits=10)

    @pytest.mark.parametrize(
        "offer",
        [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; unheard_of",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
        ],
    )
    def test_offer_that_cannot_be_met(self, offer):
        """An unknown, repeated or impossible parameter declines the offer (RFC 7692, 5.1)."""
        assert negotiate(offer, Deflate()) is None
