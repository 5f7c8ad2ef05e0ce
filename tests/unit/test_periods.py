"""Periods and moments as people write them."""

import pytest

from connector.periods import moment, period_seconds

NOW = 1_772_415_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1_800), ("36h", 129_600), ("14d", 1_209_600), ("8w", 4_838_400), (" 2 h ", 7_200)],
)
def test_a_period_is_a_number_and_its_unit(text, seconds):
    assert period_seconds(text) == seconds
    assert moment(text, NOW) == (NOW - seconds) * 1000


@pytest.mark.parametrize("text", ["", "14", "d", "0d", "-1d", "1.5d", "9999999d", "14y", None])
def test_anything_else_is_no_period(text):
    with pytest.raises(ValueError, match="must be a number with s, m, h, d or w, as in 30m"):
        period_seconds(text)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-03-02T09:30:00+08:00", 1_772_415_000_000),
        ("2026-03-02 01:30", 1_772_415_000_000),
        ("2026-03-02", 1_772_409_600_000),
    ],
)
def test_a_moment_is_also_an_iso_time_in_utc_unless_it_names_a_zone(text, milliseconds):
    assert moment(text, NOW) == milliseconds


@pytest.mark.parametrize("text", ["", "yesterday", "0h", "2026-13-01"])
def test_anything_else_is_no_moment(text):
    with pytest.raises(ValueError, match="write 30m, 2h or 7d"):
        moment(text, NOW)
