"""What a worker may say that none of ours does: one frame at a time, odd in one way or several."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from gateway.worker.loading.proofs.proof import Proof
from gateway.worker.protocol.frames import pack
from gateway.worker.protocol.messages import (
    Alive,
    Failed,
    Hello,
    Kind,
    Loaded,
    LoadFailed,
    Proved,
    Proving,
    Reply,
    Warming,
    encode_header,
)

PROOF = Proof().as_header()
HONEST: dict[int, Any] = {
    Kind.HELLO: Hello(1, "3.11"),
    Kind.WARMING: Warming(),
    Kind.LOADED: Loaded(1, {"load": 0.1}, "passed", "alone", "", "pyfunc", "", proof=PROOF),
    Kind.LOAD_FAILED: LoadFailed("load_failed", "no"),
    Kind.PROVING: Proving(PROOF),
    Kind.PROVED: Proved(PROOF),
    Kind.REPLY: Reply(1, 0.1, 0.1, 1),
    Kind.FAILED: Failed("invalid_input", "no", [[1, "x", "no"]]),
    Kind.ALIVE: Alive(1, example_ok=True),
}


ODD = [
    *("null", "true", "-1", "0", "1.5", "NaN", "Infinity", "1e400", "1" + "0" * 400, "1e308"),
    *('""', '"x"', '"' + "x" * 5000 + '"', r'"\ud800"', r'"\u0000\n\u001b[2J"', "[]", "[[1]]"),
    *("{}", '{"a":1}', "[" * 2000 + "]" * 2000, '[[1,2,"x"]]', "[[-1,null,null]]", str(2**63)),
    *('{"load":-1}', '{"load":"x"}', "[[1]]", '[["x","x","x"]]', "[null]", '"odd"'),
]


def header_of(spelled: dict[str, str]) -> bytes:
    return ("{" + ",".join(f'"{name}":{value}' for name, value in spelled.items()) + "}").encode()


def spelled_as(kind: int) -> dict[str, str]:
    honest = json.loads(encode_header(HONEST[kind]))
    return {name: json.dumps(value) for name, value in honest.items()}


START = 0
"""The moment at which a worker has to say HELLO, before anything is asked of it."""
SAID_AT: dict[int, list[int]] = {
    START: [Kind.HELLO],
    Kind.LOAD: [Kind.WARMING, Kind.LOADED, Kind.LOADED, Kind.LOAD_FAILED, Kind.PROVING],
    Kind.PREDICT: [Kind.REPLY, Kind.FAILED],
    Kind.PROBE: [Kind.ALIVE],
}
"""What an honest worker says at each moment."""
OWN_ID = -1


FLOOD_FRAMES = 5000
"""More than a gateway takes of one read."""


@dataclass(frozen=True)
class Lie:
    """A frame, said so many times. Its id may be that of what it answers."""

    kind: int
    id: int
    header: bytes
    body: bytes
    times: int

    def as_answer_to(self, asked_id: int) -> bytes:
        """Return one such frame, where a frame with this id was asked."""
        number = asked_id if self.id == OWN_ID else self.id
        return b"".join(pack(self.kind, number, self.header, self.body))


@st.composite
def lies(draw: st.DrawFn, moment: int) -> Lie:
    """Return a frame: as an honest one would be, but for some fields, or what it is about."""
    in_order = st.sampled_from(SAID_AT[moment])
    kind = draw(st.one_of(in_order, in_order, st.sampled_from([*HONEST])))
    spelled = spelled_as(kind)
    for name in draw(st.lists(st.sampled_from([*spelled, "odd"]), max_size=2)):
        if draw(st.integers(0, 3)):
            spelled[name] = draw(st.sampled_from(ODD))
        else:
            spelled.pop(name, None)
    as_meant = st.just(header_of(spelled))
    is_flood = draw(st.integers(0, 15)) == 15
    return Lie(
        draw(st.one_of(st.just(int(kind)), st.just(int(kind)), st.integers(0, 255))),
        draw(st.one_of(st.just(OWN_ID), st.just(OWN_ID), st.integers(0, 2**64 - 1))),
        draw(st.one_of(as_meant, as_meant, st.binary(max_size=40))),
        b"" if is_flood else draw(st.sampled_from([b"", b'{"predictions":[1]}', b"\x00" * 5000])),
        FLOOD_FRAMES if is_flood else 1,
    )


MOMENTS = st.sampled_from([START, Kind.LOAD, Kind.PREDICT, Kind.PREDICT, Kind.PROBE]).flatmap(
    lambda moment: st.tuples(
        st.just(moment), st.lists(lies(moment), min_size=int(moment != START), max_size=3)
    )
)
"""When what is told. At the start it comes in place of HELLO, so that it may be nothing."""
