import pytest
from hypothesis import given, strategies as st

from gateway.worker.protocol.frames import (
    MAX_BODY_BYTES,
    PREFIX,
    Frame,
    FrameError,
    FrameReader,
    pack,
)
from gateway.worker.protocol.messages import (
    KIND_OF,
    Alive,
    Cancel,
    Failed,
    Kind,
    Predict,
    Reply,
    decode_header,
    encode_header,
)

frames = st.builds(
    Frame,
    kind=st.sampled_from([int(kind) for kind in Kind]),
    id=st.integers(0, 2**64 - 1),
    header=st.binary(max_size=40),
    body=st.binary(max_size=80),
)


@given(st.lists(frames, max_size=8), st.lists(st.integers(1, 60), min_size=1, max_size=60))
def test_frames_arrive_whole_and_in_order_whatever_the_sizes_of_the_reads(sent, sizes):
    stream = b"".join(b"".join(pack(f.kind, f.id, f.header, f.body)) for f in sent)
    reader, received, at = FrameReader(), [], 0
    while at < len(stream):
        size = sizes[at % len(sizes)]
        received += reader.feed(stream[at : at + size])
        at += size
    assert received == sent


def test_a_length_beyond_the_limits_ends_the_connection():
    with pytest.raises(FrameError):
        FrameReader().feed(PREFIX.pack(Kind.PREDICT, 0, MAX_BODY_BYTES + 1, 1))


@pytest.mark.parametrize(
    "message",
    [
        Predict("predict", "application/json", 12.5, "r-1", probabilities=True),
        Cancel(),
        Reply(2, 0.1, 0.2, 8),
        Failed("invalid_input", "no", [[0, "a", "why"], [None, None, "why"]]),
        Alive(12, example_ok=False, message="no"),
    ],
)
def test_a_message_survives_its_header(message):
    assert decode_header(type(message), encode_header(message)) == message


def test_every_kind_has_one_message():
    assert sorted(KIND_OF.values()) == sorted(Kind)


@pytest.mark.parametrize("header", [b"", b"[]", b'{"strange": 1}', b"{", b"\xff"])
def test_a_header_that_is_none_is_a_value_error(header):
    with pytest.raises(ValueError, match=r".*"):
        decode_header(Predict, header)
