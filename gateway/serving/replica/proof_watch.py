"""Watches the proofs of a worker: limits their time, and keeps their findings.

A proof has a time limit of its own, so that it never keeps a model from serving. Requests that
arrive during a proof have not begun, and another worker may take them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.serving.replica.worker_messages import InvalidMessageError
from gateway.worker.loading.proofs.proof import MAX_LOST, Proof, longest_call_s
from gateway.worker.protocol import messages

_FRAMES = 512
_FRAMES_PER_S = 64
"""Frames about proofs that a worker may send: a burst, and a rate after it."""


@dataclass(slots=True)
class _UnderWay:
    """The present proof.

    Attributes:
        unproved: The proof to keep if the worker does not return from it, or None.
        timer: Ends the worker if the proof takes too long, or None while the load's limit does.
        left_s: Seconds that were left of the warm-up when the proof began.
    """

    unproved: Proof | None
    timer: asyncio.TimerHandle | None = None
    left_s: float = 0.0


class ProofWatch:
    """Watches one worker's proofs. Event loop only.

    ``on_late`` is called with the limit that a proof has exceeded. The attribute ``order`` is the
    worker's load order, and is set before its first message.
    """

    def __init__(
        self,
        proof_s: float,
        grace_s: float,
        keep: Callable[[messages.Load, Proof], None],
        on_late: Callable[[float], None],
    ) -> None:
        self.order: messages.Load
        self._limit_s = proof_s
        self._grace_s = grace_s
        self._keep = keep
        self._on_late = on_late
        self._under_way: _UnderWay | None = None
        self._was_in_warm_up = False
        self._frames_left = float(_FRAMES)
        self._counted_at = 0.0

    @property
    def is_under_way(self) -> bool:
        """Whether the worker is in a proof."""
        return self._under_way is not None

    def count_frame(self, now: float) -> None:
        """Count a frame about proofs: they cause writes to the disk.

        Raises:
            InvalidMessageError: They come in a flood.
        """
        earned = (now - self._counted_at) * _FRAMES_PER_S
        self._frames_left = min(_FRAMES, self._frames_left + earned) - 1
        self._counted_at = now
        if self._frames_left < 0:
            raise InvalidMessageError("a flood of proofs")

    def begin_while_ready(self, unproved: Proof | None) -> None:
        """Begin a proof between requests, which may take as long as one call of the model."""
        self.end(None)
        loop = asyncio.get_running_loop()
        limit_s = longest_call_s(self._limit_s, self.order.timeout_s) + self._grace_s
        timer = loop.call_later(limit_s, self._on_late, limit_s)
        self._under_way = _UnderWay(unproved, timer)

    def begin_in_warm_up(self, unproved: Proof | None, phase: asyncio.Timeout | None) -> None:
        """Begin the one proof of the warm-up, whose time limit pauses meanwhile."""
        if self._under_way is not None:
            self._under_way.unproved = unproved  # it has come further
        elif not self._was_in_warm_up:
            self._was_in_warm_up = True
            if phase is not None and (until := phase.when()) is not None:
                now = asyncio.get_running_loop().time()
                self._under_way = _UnderWay(unproved, left_s=until - now)
                phase.reschedule(now + self._limit_s + self._grace_s)

    def end(self, phase: asyncio.Timeout | None) -> None:
        """End the present proof, and continue the time limit of the warm-up."""
        ended, self._under_way = self._under_way, None
        if ended is not None and ended.timer is not None:
            ended.timer.cancel()
        elif ended is not None and phase is not None:
            with contextlib.suppress(RuntimeError):  # it has expired in this step
                phase.reschedule(asyncio.get_running_loop().time() + ended.left_s)

    def keep(self, proof: Proof) -> None:
        """Keep a proof of the worker."""
        self._keep(self.order, proof)

    def lose(self) -> None:
        """Keep, once, the proof that holds after the worker has died in it."""
        if self._under_way is not None and self._under_way.unproved is not None:
            self.keep(self._under_way.unproved)
            self._under_way.unproved = None

    def give_up(self) -> None:
        """Keep that the proof takes too long, so that no worker begins it again."""
        if self._under_way is not None and self._under_way.unproved is not None:
            self._under_way.unproved = replace(self._under_way.unproved, lost=MAX_LOST)
            self.lose()

    def close(self) -> None:
        """Cancel the timer."""
        if self._under_way is not None and self._under_way.timer is not None:
            self._under_way.timer.cancel()


def with_proof(loaded: messages.Loaded, proof: Proof) -> messages.Loaded:
    """Return a worker's report of its load, updated with a later proof."""
    return replace(
        loaded,
        batching=proof.batching,
        batching_reason=proof.batching_reason,
        call_path=proof.call_path,
        call_path_reason=proof.call_path_reason,
        answers=proof.answers,
        joined_rows=proof.joined_rows,
        proof=proof.as_header(),
    )
