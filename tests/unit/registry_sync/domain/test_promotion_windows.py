"""Promotion windows: what is read, and when they open across changes of the local time."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from registry_sync.domain.promotion_windows import WindowState, parse_windows, window_state

MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def state(window: str, moment: datetime) -> WindowState:
    return window_state(parse_windows(window), moment.timestamp())


class TestReading:
    def test_no_window_is_always_open(self) -> None:
        assert window_state(parse_windows(" ; "), 0.0) == WindowState(is_open=True, until=None)

    @pytest.mark.parametrize(
        "text",
        [
            "0 9 * * mon-fri PT8H Europe/Berlin",
            "  00 09 * * MON,wed-Fri   PT90M UTC ",
            "*/15 9-17/4 * * * PT10M Asia/Kolkata",
            "0 0 last feb-mar * P1D UTC",
            "0 0 * * * P1D UTC; 0 9 1,15 * * PT1H30M America/New_York;",
        ],
    )
    def test_crontab_duration_and_zone_are_read(self, text: str) -> None:
        assert [window.text for window in parse_windows(text)] == [
            " ".join(part.split()) for part in text.split(";") if part.strip()
        ]

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("0 9 * * mon PT8H", "five fields of crontab, a duration and a time zone"),
            ("0 9 * * 1-5 PT8H UTC", "a day of the week must be a name"),
            ("0 9 1 * mon PT8H UTC", "write two windows"),
            ("61 9 * * mon PT8H UTC", "maximum value (59)"),
            ("0 9 * * monday PT8H UTC", "Invalid weekday name"),
            ("0 9 * * fri-mon PT8H UTC", "minimum value"),
            ("0 9 lastly * * PT8H UTC", "'lastly' would be read as 'last'"),
            ("0 9 * jan5 * PT8H UTC", "'jan5' would be read as 'jan'"),
            ("0 9 * * mon 8H UTC", "must be a duration, such as PT8H"),
            ("0 9 * * mon P8H UTC", "must be a duration, such as PT8H"),
            ("0 9 * * mon 3600 UTC", "must be a duration, such as PT8H"),
            ("0 9 * * mon PT90S UTC", "whole minutes"),
            ("0 9 * * mon PT0M UTC", "whole minutes"),
            ("0 9 * * mon PT8H Europe", "must be a time zone"),
            ("0 9 * * mon PT8H ../UTC", "must be a time zone"),
            ("0 9 30 feb * PT8H UTC", "it never opens"),
            ("* 9 * * * PT8H UTC", "opens again after 0:01:00, before it closes"),
            ("0 9 * * * PT25H UTC", "before it closes"),
        ],
    )
    def test_what_cannot_be_read_is_named_with_its_reason(self, text: str, reason: str) -> None:
        with pytest.raises(ValueError, match=r"the promotion window .* cannot be read") as refused:
            parse_windows(f"0 9 * * mon-fri PT8H Europe/Berlin; {text}")
        assert repr(text) in str(refused.value)
        assert reason in str(refused.value)


class TestOneDay:
    WINDOW = "0 9 * * mon-fri PT8H Europe/Berlin"

    @pytest.mark.parametrize(
        ("moment", "is_open", "until"),
        [
            ("2026-11-24T08:59:59+01:00", False, "2026-11-24T09:00+01:00"),
            ("2026-11-24T09:00:00+01:00", True, "2026-11-24T17:00+01:00"),
            ("2026-11-24T16:59:59+01:00", True, "2026-11-24T17:00+01:00"),
            ("2026-11-24T17:00:00+01:00", False, "2026-11-25T09:00+01:00"),
            ("2026-11-27T17:00:00+01:00", False, "2026-11-30T09:00+01:00"),
        ],
    )
    def test_it_is_open_from_its_time_for_its_duration(
        self, moment: str, is_open: bool, until: str
    ) -> None:
        found = state(self.WINDOW, at(moment))
        assert found == WindowState(is_open, at(until))
        assert found.opens_at == (None if is_open else at(until))

    def test_the_first_of_several_windows_opens_and_the_last_closes(self) -> None:
        both = f"{self.WINDOW}; 0 12 * * tue PT8H UTC"
        assert state(both, at("2026-11-24T05:00Z")).opens_at == at("2026-11-24T08:00Z")
        assert state(both, at("2026-11-24T12:00Z")).until == at("2026-11-24T20:00Z")


CHANGES = [
    # Europe/Berlin: from 02:00 to 03:00 on 29 March, from 03:00 to 02:00 on 25 October.
    ("the gap", "30 2 * * *", "Europe/Berlin", "2026-03-29T00:00Z", "2026-03-29T01:00Z"),
    ("after the gap", "0 3 * * *", "Europe/Berlin", "2026-03-29T00:00Z", "2026-03-29T01:00Z"),
    ("the day after", "30 2 * * *", "Europe/Berlin", "2026-03-29T01:00Z", "2026-03-30T00:30Z"),
    ("the fold", "30 2 * * *", "Europe/Berlin", "2026-10-25T00:00Z", "2026-10-25T00:30Z"),
    ("once in it", "30 2 * * *", "Europe/Berlin", "2026-10-25T00:30Z", "2026-10-26T01:30Z"),
    ("after the fold", "0 3 * * *", "Europe/Berlin", "2026-10-25T00:30Z", "2026-10-25T02:00Z"),
    # America/New_York: 8 March and 1 November, at 02:00.
    ("the gap", "30 2 * * *", "America/New_York", "2026-03-08T06:00Z", "2026-03-08T07:00Z"),
    ("the fold", "30 1 * * *", "America/New_York", "2026-11-01T05:00Z", "2026-11-01T05:30Z"),
    ("once in it", "30 1 * * *", "America/New_York", "2026-11-01T05:30Z", "2026-11-02T06:30Z"),
    # Lord Howe: by half an hour only, on 4 October and 5 April, at 02:00.
    ("the gap", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T15:00Z", "2026-10-03T15:30Z"),
    ("after it", "30 2 * * *", "Australia/Lord_Howe", "2026-10-03T15:00Z", "2026-10-03T15:30Z"),
    ("the fold", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:30Z", "2026-04-04T14:45Z"),
    ("once in it", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:45Z", "2026-04-05T15:15Z"),
    # Apia left out a whole day, 30 December 2011.
    ("a day", "0 9 * * *", "Pacific/Apia", "2011-12-29T19:30Z", "2011-12-30T10:00Z"),
]


class TestSummerTime:
    @pytest.mark.parametrize(("where", "crontab", "zone", "after", "opens_at"), CHANGES)
    def test_a_skipped_time_comes_when_it_is_skipped_and_a_repeated_one_once(
        self, where: str, crontab: str, zone: str, after: str, opens_at: str
    ) -> None:
        window = f"{crontab} PT10M {zone}"
        closed = at(after) + 10 * MINUTE  # where it had just opened, it is closed by then
        if closed < at(opens_at):
            assert state(window, closed) == WindowState(is_open=False, until=at(opens_at)), where
        assert not state(window, at(opens_at) - MINUTE).is_open
        assert state(window, at(opens_at)).until == at(opens_at) + 10 * MINUTE

    @pytest.mark.parametrize(
        ("date", "closes_at"),
        [
            ("2026-03-28", "2026-03-29T04:00+02:00"),
            ("2026-10-24", "2026-10-25T02:00+01:00"),
            ("2026-11-24", "2026-11-25T03:00+01:00"),
        ],
    )
    def test_a_duration_is_elapsed_time(self, date: str, closes_at: str) -> None:
        opened = datetime.fromisoformat(f"{date}T23:00").replace(tzinfo=ZoneInfo("Europe/Berlin"))
        assert state("0 23 * * * PT4H Europe/Berlin", opened).until == at(closes_at)


ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
CHANGING = [(3, 8), (3, 29), (4, 5), (10, 4), (10, 25), (11, 1)]
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def open_minutes(hour: int, minute: int, days: set[str], duration: int, zone: str, first: datetime):
    """Walk through three days minute by minute, and open whenever the zone's clock passes by."""
    shown, open_until = datetime.min, first - MINUTE  # noqa: DTZ901  # what a wall shows
    for number in range(-4 * 1440, 3 * 1440):
        moment = first + number * MINUTE
        shows = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        passed = max(shown + MINUTE, shows - timedelta(days=1)) if number > -4 * 1440 else shows
        while passed <= shows:
            if (passed.hour, passed.minute) == (hour, minute) and DAYS[passed.weekday()] in days:
                open_until = moment + duration * MINUTE
            passed += MINUTE
        shown = max(shown, shows)
        if number >= 0:
            yield moment, moment < open_until


@settings(max_examples=40, deadline=None)
@given(
    hour=st.integers(0, 4),
    minute=st.sampled_from([0, 15, 30, 59]),
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    duration=st.sampled_from([1, 30, 90, 1380]),
    zone=st.sampled_from(ZONES),
    changing=st.sampled_from(CHANGING),
)
def test_it_is_open_when_a_clock_on_a_wall_says_so(
    hour: int, minute: int, days: set[str], duration: int, zone: str, changing: tuple[int, int]
) -> None:
    windows = parse_windows(f"{minute} {hour} * * {','.join(sorted(days))} PT{duration}M {zone}")
    first = datetime(2026, *changing, tzinfo=UTC) - timedelta(days=1)
    found = window_state(windows, first.timestamp())
    for moment, is_open in open_minutes(hour, minute, days, duration, zone, first):
        assert found.until is not None
        if moment >= found.until:
            found = window_state(windows, moment.timestamp())
            assert moment < (found.until or moment)
        assert found.is_open == is_open, moment
