"""What waits for a socket, and the turn in which it goes."""

from __future__ import annotations

from jupyter_agents.websocket.frames import BINARY, TEXT, Deflate, encode_frame
from jupyter_agents.websocket.outbox import Bundle, Message, Outbox


class TestMessage:
    def test_frame_is_built_once(self):
        """Every socket gets the very same bytes object."""
        message = Message(b"hello")
        assert message.frame == encode_frame(b"hello", TEXT)
        assert message.frame is message.frame

    def test_binary_has_its_opcode(self):
        """A binary message says so."""
        assert Message(b"\xff", binary=True).frame == encode_frame(b"\xff", BINARY)

    def test_compressed_once_per_agreement(self):
        """Sockets that agreed on the same share one compressed frame, others have their own."""
        message = Message(b"x" * 5000)
        frame = message.frame_for(Deflate())
        assert frame is message.frame_for(Deflate())
        assert frame[0] == 0xC1
        assert len(frame) < 100
        assert message.frame_for(Deflate(window_bits=9)) is not frame
        assert message.frame_for(None) is message.frame

    def test_small_message_stays_plain(self):
        """Below `min_bytes` nothing is compressed."""
        message = Message(b"x" * 99)
        assert message.frame_for(Deflate(min_bytes=100)) is message.frame


class TestBundle:
    def test_frames_lie_behind_each_other(self):
        """Messages keep their frames and their order; each is counted."""
        payloads = [b"one", b"x" * 200, b"three"]
        for binary in (False, True):
            bundle = Bundle(payloads, binary)
            parts = [Message(payload, binary) for payload in payloads]
            assert bundle.frame == b"".join(part.frame for part in parts)
            assert (bundle.count, bundle.replaceable) == (3, False)

    def test_each_is_compressed_by_itself(self):
        """A socket that agreed on compression gets the same frames as without a bundle."""
        parts = [Message(b"small"), Message(b"x" * 5000)]
        bundle, deflate = Bundle([part.payload for part in parts]), Deflate()
        assert bundle.frame_for(deflate) == b"".join(part.frame_for(deflate) for part in parts)
        assert bundle.frame_for(deflate) is bundle.frame_for(Deflate())
        assert bundle.frame_for(None) is bundle.frame


def state(text: bytes) -> bytes:
    return Message(text, replaceable=True).frame


class TestOutbox:
    def test_frames_are_joined_in_order(self):
        """What fits is taken at once, first in first out."""
        outbox = Outbox()
        for frame in (b"a", b"bc", b"def"):
            outbox.append(frame)
        assert outbox.size_bytes == 6
        assert outbox.take(100) == b"abcdef"
        assert (outbox.size_bytes, outbox.take(100)) == (0, b"")

    def test_lone_frame_is_not_copied(self):
        """A broadcast's frame goes to the socket as the object it is."""
        outbox, frame = Outbox(), b"x" * 50
        outbox.append(frame)
        assert outbox.take(10) is frame

    def test_batches_keep_to_their_size(self):
        """A batch ends before the frame that would make it too long; a longer frame goes alone."""
        outbox = Outbox()
        for frame in (b"aaaa", b"bbbb", b"cccccccccccc", b"d"):
            outbox.append(frame)
        assert [outbox.take(9) for _ in range(3)] == [b"aaaabbbb", b"cccccccccccc", b"d"]
        assert outbox.size_bytes == 0

    def test_control_frame_overtakes(self):
        """A ping goes before messages that wait."""
        outbox = Outbox()
        outbox.append(b"data")
        outbox.push_front(b"ping")
        assert outbox.take(100) == b"pingdata"

    def test_only_the_newest_state_stays(self):
        """Older states go, messages keep their order around the newest state."""
        outbox = Outbox()
        for frame in (state(b"1"), b"m1", state(b"2"), b"m2", state(b"3"), b"m3"):
            outbox.append(frame)
        outbox.drop_stale(all_of_them=False)
        assert outbox.size_bytes == len(b"m1m2m3") + 3
        assert outbox.take(100) == b"m1m2" + state(b"3") + b"m3"

    def test_every_state_goes_when_a_newer_comes(self):
        """The state that is about to be added makes all the others stale."""
        outbox = Outbox()
        for frame in (state(b"1"), b"m1", state(b"2")):
            outbox.append(frame)
        outbox.drop_stale(all_of_them=True)
        assert outbox.take(100) == b"m1"
