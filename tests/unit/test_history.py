"""The history behind the overview's charts, and the charts: what is kept, what is shaded, what the axes say."""

from zoneinfo import ZoneInfo

from connector.operations import charts
from connector.operations.history import MAX_COARSE_POINTS, MAX_FINE_POINTS, History, Point
from connector.telemetry.health import Health
from connector.telemetry.metrics import Metrics

SHANGHAI = ZoneInfo("Asia/Shanghai")
START = 1_795_900_000.0
HOUR = 3_600_000


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def point(at: int, *, rate: float = 1.0, is_published: bool = True, is_accepted: bool = True) -> Point:
    return Point(at, 5.0, rate, rate, 0.0, 0, 3.0, 9.0, is_published, is_accepted)


def taken(minutes: int) -> tuple[History, Health, Clock]:
    health, clock = Health(1_000_000, is_open=True, kafka="up"), Clock()
    metrics = Metrics(version="1", sources=["default"], streams=("events",))
    history = History(metrics.registry, health, clock)
    for _ in range(minutes * 12):
        history.take()
        clock.now += 5
    return history, health, clock


def test_points_become_minutes_and_both_are_bounded():
    history, _, _ = taken(10)
    assert 9 <= len(history.coarse) <= 10
    assert (history.fine.maxlen, history.coarse.maxlen) == (MAX_FINE_POINTS, MAX_COARSE_POINTS)
    assert len(history.points(2 * HOUR)) == 10 * 12 - 1


def test_an_outage_is_one_span_and_a_closed_door_is_worse():
    history, health, clock = taken(1)
    for kafka, is_open in (("stalled", True), ("down", True), ("down", False), ("up", True)):
        health.kafka, health.is_open = kafka, is_open
        history.take()
        clock.now += 5
    [outage] = history.outages(2 * HOUR)
    assert outage.is_closed
    assert outage.ended == int((clock.now - 10) * 1000)


def test_a_short_outage_stays_visible_over_two_days():
    day = [point(at * 60_000, is_published=at != 700) for at in range(2_880)]
    merged = [Point.of(day[first : first + 16]) for first in range(0, 2_880, 16)]
    assert [one.is_published for one in merged].count(False) == 1


def test_axes_have_round_values_and_what_a_clock_shows():
    assert charts.value_ticks(0) == [0, 0.5, 1]
    assert charts.value_ticks(37) == [0, 10, 20, 30, 40]
    noon = int(START * 1000) // HOUR * HOUR
    ticks = charts.time_ticks(noon, noon + 2 * HOUR, SHANGHAI, limit=6)
    assert len(ticks) in range(4, 8)
    assert all(text.endswith(("00", "20", "30", "40")) for _, text in ticks)
    days = charts.time_ticks(noon, noon + 48 * HOUR, SHANGHAI, limit=6)
    assert any("-" in text for _, text in days)


def test_a_gap_begins_another_line_and_outages_are_shaded():
    now = int(START * 1000)
    points = [point(now + at * 5_000) for at in (*range(10), *range(40, 50))]
    outages = [charts.Outage(now + 50_000, now + 200_000, is_closed=False)]
    messages, *_ = charts.draw(points, outages, (now, now + 250_000), SHANGHAI)
    assert len(messages.lines[0].paths) == 2
    [(x, width, kind)] = messages.outages
    assert kind == "fair"
    assert width > 100
    assert messages.columns[9] <= x


def test_long_names_are_cut_where_they_no_longer_fit():
    assert charts.fit("财务复核", 8) == "财务复核"
    assert charts.fit("财务复核人", 8) == "财务复…"
