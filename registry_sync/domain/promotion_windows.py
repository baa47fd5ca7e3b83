"""Promotion windows: when the registry may promote an alias that is active. Pure.

APScheduler reads the crontab expressions in UTC, because it repeats or skips times at a change to
or from summer time. This module converts the local times that it returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger
from pydantic import TypeAdapter, ValidationError

_MINUTE = timedelta(minutes=1)
_CRONTAB_FIELDS = ("minute", "hour", "day", "month", "day_of_week")
_EXAMPLE = "0 9 * * mon-fri PT8H Europe/Berlin"
_CHECKED_FROM, _CHECKED_OPENINGS = datetime(2024, 1, 1, tzinfo=UTC), 100
_duration = TypeAdapter(timedelta)


@dataclass(frozen=True, slots=True)
class PromotionWindow:
    """Opens at the local times of a crontab expression, for a duration in elapsed time."""

    text: str
    duration: timedelta
    zone: ZoneInfo
    crontab: CronTrigger = field(compare=False)


PromotionWindows = tuple[PromotionWindow, ...]
"""Promotions act while any of these windows is open, or always if the tuple is empty."""


@dataclass(frozen=True, slots=True)
class WindowState:
    """Whether promotions act.

    Attributes:
        is_open: Whether any window is open.
        until: The moment until which this stays so at least, or None if it always does.
    """

    is_open: bool
    until: datetime | None

    @property
    def opens_at(self) -> datetime | None:
        """The moment at which a window opens, or None if one is open."""
        return None if self.is_open else self.until


_ALWAYS_OPEN = WindowState(is_open=True, until=None)


def window_state(windows: PromotionWindows, at: float) -> WindowState:
    """Return whether promotions act at a time, in epoch seconds.

    Windows open and close at whole minutes.
    """
    return _state_in_minute(windows, int(at // 60)) if windows else _ALWAYS_OPEN


@lru_cache(maxsize=1)
def _state_in_minute(windows: PromotionWindows, minute: int) -> WindowState:
    """Return the state in a minute since the epoch, which a pass asks for once per model."""
    now = datetime.fromtimestamp(60 * minute, UTC)
    states = [_state_of(window, now) for window in windows]
    if closings := [state.until for state in states if state.is_open and state.until]:
        return WindowState(is_open=True, until=max(closings))
    return WindowState(is_open=False, until=min(state.until for state in states if state.until))


def _state_of(window: PromotionWindow, now: datetime) -> WindowState:
    closes_at = None
    for opens_at in _openings(window, after=now - window.duration):
        if opens_at > now:
            return WindowState(closes_at is not None, closes_at or opens_at)
        closes_at = opens_at + window.duration
    raise AssertionError("a window that was parsed opens again")


def _openings(window: PromotionWindow, *, after: datetime) -> Iterator[datetime]:
    """Yield the moments after a time at which a window opens, in order."""
    for local in _local_openings(window, _local(after, window.zone)):
        opens_at = _first_shown(local, window.zone)
        if opens_at > after:  # else it was before the clock was set back
            yield opens_at


def _local_openings(window: PromotionWindow, local: datetime) -> Iterator[datetime]:
    """Yield the local times from one on at which a window opens, written as if they were UTC."""
    at: datetime | None = window.crontab.get_next_fire_time(None, local)
    while at is not None:
        yield at
        at = window.crontab.get_next_fire_time(None, at + _MINUTE)


def _first_shown(local: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment at which a zone's clock first shows a local time, or a later one.

    A time that the clock skips counts at the skip, and a time that it shows twice the first time.
    """
    moment = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    while _local(moment - _MINUTE, zone) >= local:
        moment -= _MINUTE
    return moment


def _local(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return what a zone's clock shows at a moment, written as if it were UTC."""
    return moment.astimezone(zone).replace(tzinfo=UTC, fold=0)


# --- the setting ----------------------------------------------------------------------------------


def parse_windows(text: str) -> PromotionWindows:
    """Return the windows of a setting, separated by ``;``.

    Raises:
        ValueError: One of them cannot be read; the message names it.
    """
    return tuple(_parse_window(" ".join(part.split())) for part in text.split(";") if part.strip())


def _parse_window(text: str) -> PromotionWindow:
    words = text.split()
    try:
        if len(words) != len(_CRONTAB_FIELDS) + 2:
            raise ValueError("it must have the five fields of crontab, a duration and a time zone")  # noqa: TRY301  # every reason gets the window's text below
        *fields, duration, zone = words
        window = PromotionWindow(text, _duration_of(duration), _zone(zone), _crontab(fields))
        _check_openings(window)
    except ValueError as error:
        raise ValueError(
            f"the promotion window {text!r} cannot be read: {error}; write it like {_EXAMPLE!r}"
        ) from None
    return window


def _crontab(fields: list[str]) -> CronTrigger:
    _, _, day, _, weekday = fields
    if any(character.isdigit() for character in weekday):
        raise ValueError("a day of the week must be a name, mon to sun")  # crontab's 0 is Sunday
    if day != "*" and weekday != "*":
        raise ValueError(  # crontab means either, APScheduler both
            "it must not name both a day of the month and a day of the week: write two windows"
        )
    trigger = CronTrigger.from_crontab(" ".join(fields), timezone=UTC)
    read = {one.name: str(one) for one in trigger.fields}
    for name, written in zip(_CRONTAB_FIELDS, fields, strict=True):
        # APScheduler ignores text that it does not understand at the end of a field.
        if re.sub(r"\b0+(?=\d)", "", written.lower()) != read[name]:
            raise ValueError(f"its field {written!r} would be read as {read[name]!r}")
    return trigger


def _duration_of(text: str) -> timedelta:
    try:
        if not text.startswith("P"):
            raise ValueError(text)  # noqa: TRY301  # pydantic reads other forms, too
        duration = _duration.validate_python(text)
    except (ValueError, ValidationError):
        raise ValueError(f"{text!r} must be a duration, such as PT8H or PT90M") from None
    if duration < _MINUTE or duration % _MINUTE:
        raise ValueError(f"its duration {text} must be one or more whole minutes")
    return duration


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ValueError(f"{name!r} must be a time zone, such as Europe/Berlin or UTC") from None


def _check_openings(window: PromotionWindow) -> None:
    """Refuse a window that never opens, or opens again before it closes, as ``* 9 * * *`` does."""
    openings = list(islice(_local_openings(window, _CHECKED_FROM), _CHECKED_OPENINGS))
    if not openings:
        raise ValueError("it never opens")
    for before, after in pairwise(openings):
        if after - before < window.duration:
            raise ValueError(f"it opens again after {after - before}, before it closes")
