"""Budgets: how they are written, what a setting takes on a scene, and which one is chosen."""

import math
import re
from dataclasses import replace

import pytest

from terralean.errors import ConfigError
from terralean.mapping.budget import (
    Budget,
    BudgetConfig,
    Calibration,
    Extent,
    choose,
    duration,
    expected_s,
    parse_budget,
)
from terralean.tokens.topk import TopKConfig
from terralean.weights.curve import Change, Row

OWN = Row(
    overlap_px=128,
    precision="fp32",
    reduce=None,
    score="mIoU",
    value=0.812,
    low=0.79,
    high=0.83,
    change=Change(value=0.0),
    relative_cost=1.0,
    relative_window_cost=1.0,
    device="processor",
)


def row(value: float, **changes) -> Row:
    known = Change(value=value - 0.812, low=value - 0.815, high=value - 0.809)
    return replace(OWN, value=value, change=known, **changes)


HALF, NONE = row(0.809, overlap_px=64), row(0.795, overlap_px=0)
BF16 = row(0.811, precision="bf16", relative_window_cost=0.5)
LEFT = row(0.8, reduce=TopKConfig(shares=(0.7, 0.7)), relative_window_cost=0.8)
ROWS = (OWN, HALF, NONE, BF16, LEFT)
TAKES = Calibration(seconds_per_mpx=10.0, device="processor")
SCENE = Extent(height_px=3968, width_px=3968, mapped_px=10_000_000, area_km2=10.0, tile_px=512)  # 100 s by the own setting


def chosen(text: str, *, rows=ROWS, takes: Calibration = TAKES, scene: Extent = SCENE, reserve: float = 0.0):
    return choose(
        rows, own=OWN, budget=parse_budget(text), calibration=takes, extent=scene, config=BudgetConfig(reserve=reserve)
    )


@pytest.mark.parametrize(
    ("text", "seconds", "per_km2"),
    [
        ("10min", 600, False),
        ("90s", 90, False),
        ("1h30m", 5400, False),
        ("1h30min", 5400, False),
        ("1H 30 Min 5 s", 5405, False),
        ("1.5h", 5400, False),
        (".5s", 0.5, False),
        ("250ms", 0.25, False),
        ("2s/km2", 2, True),
        ("2s/km²", 2, True),
        ("0.5 s / km^2", 0.5, True),
        ("1m/km2", 60, True),
    ],
)
def test_budgets_are_read(text, seconds, per_km2):
    assert parse_budget(text) == Budget(seconds=seconds, per_km2=per_km2, text=text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "ten minutes",
        "10 minutes",
        "-5s",
        "5s6",
        "30m1h",
        "5s5s",
        "5m5min",
        "2s/ha",
        "2s/",
        "1e3s",
        "s",
        "0s",
        "inf s",
    ],
)
def test_what_is_no_time_is_refused_with_examples(text):
    with pytest.raises(ConfigError, match=r"--budget .* is no time.*write 10min, 90s, 1h30m, or by area 2s/km2"):
        parse_budget(text)


def test_by_area_a_budget_grows_with_the_scene_and_needs_one():
    assert parse_budget("2s/km2").of(area_km2=12.5) == 25
    assert parse_budget("2min").of(area_km2=None) == 120
    with pytest.raises(ConfigError, match="goes by area, and the scene has none: no CRS"):
        parse_budget("2s/km2").of(area_km2=None)


def test_the_own_setting_takes_what_the_trial_says():
    assert expected_s(OWN, own=OWN, calibration=TAKES, extent=SCENE) == pytest.approx(100)
    fixed = replace(TAKES, fixed_s=7.0)
    assert expected_s(BF16, own=OWN, calibration=fixed, extent=SCENE) == pytest.approx(7 + 50)


def test_less_overlap_takes_as_many_windows_less():
    """3968 px are 10 windows of 512 px that share 128, 9 that share 64 (the last begins at 3584), 8 that share none."""
    assert expected_s(HALF, own=OWN, calibration=TAKES, extent=SCENE) == pytest.approx(100 * 81 / 100)
    assert expected_s(NONE, own=OWN, calibration=TAKES, extent=SCENE) == pytest.approx(100 * 64 / 100)
    small = replace(SCENE, height_px=500, width_px=500)
    assert expected_s(NONE, own=OWN, calibration=TAKES, extent=small) == pytest.approx(100)  # one window is one window


def test_on_a_large_scene_windows_go_by_the_square_of_their_distance():
    large = replace(SCENE, height_px=10**6, width_px=10**6)
    assert expected_s(NONE, own=OWN, calibration=TAKES, extent=large) == pytest.approx(100 * (384 / 512) ** 2, rel=2e-3)


def test_the_own_setting_stays_where_it_meets_the_budget():
    better = row(0.9, overlap_px=32)  # by chance: more than the budget asks for is not bought
    found = chosen("100s", rows=(*ROWS, better))
    assert (found.row, found.given_up) == (OWN, "")
    assert (found.seconds, found.own_seconds, found.budget_s) == pytest.approx((100, 100, 100))


@pytest.mark.parametrize(("budget", "best"), [("99s", BF16), ("81s", BF16), ("50s", BF16)])
def test_of_those_that_meet_it_the_most_accurate_is_chosen(budget, best):
    assert chosen(budget).row == best


def test_without_the_best_the_next_is_chosen_until_none_is_left():
    rows = (OWN, HALF, NONE, LEFT)
    assert chosen("99s", rows=rows).row == HALF
    assert chosen("80.9s", rows=rows).row == LEFT  # 80 s
    assert chosen("79s", rows=rows).row == NONE  # 64 s
    with pytest.raises(ConfigError, match="cannot be met"):
        chosen("63s", rows=rows)


def test_of_equal_scores_the_quicker_is_chosen():
    rows = (OWN, row(0.8, overlap_px=64), row(0.8, overlap_px=0))
    assert chosen("90s", rows=rows).row.overlap_px == 0


def test_a_part_of_the_budget_stays_free():
    assert chosen("105s", reserve=0.1).row == BF16
    assert chosen("112s", reserve=0.1).row == OWN


def test_by_area():
    assert chosen("10s/km2").row == OWN
    assert chosen("9s/km2").row == BF16
    with pytest.raises(
        ConfigError, match=r"--budget 4s/km2, 40s for this scene cannot be met.*; give (\S+/km2) or more"
    ) as refused:
        chosen("4s/km2")
    (enough,) = re.findall(r"give (\S+) or more", str(refused.value))
    assert chosen(enough).row == BF16


def test_what_is_given_up_is_told():
    both = row(0.8, overlap_px=64, precision="bf16", relative_window_cost=0.4, reduce=TopKConfig(after=(3,), shares=(0.7,)))
    assert chosen("99s", rows=(OWN, HALF)).given_up == (
        "overlap 128 -> 64 px: mIoU 0.812 -> 0.809 (change -0.3 points, 95 % interval -0.6 to +0.0)"
    )
    assert chosen("40s", rows=(OWN, both)).given_up.startswith(
        "overlap 128 -> 64 px, precision fp32 -> bf16, token reduction none -> topk after=[3] shares=[0.7]: mIoU 0.812 -> 0.800"
    )
    unsure = replace(HALF, change=Change(value=-0.003))
    assert chosen("99s", rows=(OWN, unsure)).given_up == "overlap 128 -> 64 px: mIoU 0.812 -> 0.809"


def test_a_refusal_says_the_least_possible_time_and_how():
    with pytest.raises(ConfigError) as refused:
        chosen("30s", reserve=0.1)
    assert str(refused.value) == (
        "--budget 30s cannot be met: the quickest setting of the run's accuracy-cost curve takes about 50s on this device "
        "(precision fp32 -> bf16: mIoU 0.812 -> 0.811 (change -0.1 points, 95 % interval -0.4 to +0.2)); give 56s or more, a "
        "smaller scene or part of it, or a quicker device"
    )
    assert chosen("56s", reserve=0.1).row == BF16  # what is asked for is enough


def test_costs_of_another_device_count_for_overlap_alone():
    elsewhere = replace(TAKES, device="graphics card")
    assert chosen("90s", takes=elsewhere).row == HALF
    with pytest.raises(ConfigError, match=r"takes about 1min4s on this device \(overlap 128 -> 0 px"):
        chosen("60s", takes=elsewhere)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (4.25, "4.2s"), (59.4, "59s"), (60, "1min"), (125, "2min5s"), (3600, "1h"), (5400, "1h30min")],
)
def test_durations_are_told_as_budgets_are_written(seconds, text):
    assert duration(seconds) == text
    if seconds >= 1:
        assert parse_budget(text).seconds == pytest.approx(seconds, rel=0.02)


@pytest.mark.parametrize(("seconds", "fixed"), [(0.0, 0.0), (math.nan, 0.0), (math.inf, 0.0), (1.0, -1.0), (1.0, math.nan)])
def test_a_trial_that_says_nothing_is_refused(seconds, fixed):
    with pytest.raises(ConfigError, match="a calibration takes more than no time"):
        Calibration(seconds_per_mpx=seconds, fixed_s=fixed, device="processor")


@pytest.mark.parametrize("reserve", [-0.1, 1.0])
def test_a_reserve_is_a_share(reserve):
    with pytest.raises(ConfigError, match="reserve must be 0 to below 1"):
        BudgetConfig(reserve=reserve)
