"""When a column alarms: above what matters and above chance, and with rows enough."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserving.monitor.counting import ColumnCounter
from mlserving.monitor.drift import ColumnDrift, compare
from mlserving.monitor.settings import MonitorSettings
from mlserving.statistics.columns import Column
from mlserving.statistics.distances import cohens_w, superiority
from watched_model import column_of

TRAINING = column_of(np.random.default_rng(0).lognormal(3, 1.5, 20_000))
CLASSES = column_of(np.random.default_rng(0).choice(["a", "b", "c"], p=[0.7, 0.2, 0.1], size=20_000))


def held(reference: Column, values: object, *, false_alarm: float = 1e-4, **changed: object) -> ColumnDrift:
    counter = ColumnCounter(reference=reference)
    counter.add(pa.array(values))
    return compare(
        "feature/x",
        reference,
        counter.column(),
        settings=MonitorSettings(**changed),  # type: ignore[arg-type]
        false_alarm=false_alarm,
        new_values=counter.new_share,
        unreadable=counter.unreadable,
    )


@pytest.mark.parametrize("rows", [100, 200, 1000, 5000])
def test_samples_of_training_s_distribution_stay_quiet(rows: int) -> None:
    alarms = []
    for seed in range(100):
        random = np.random.default_rng([7, seed])
        for found in (
            held(TRAINING, random.lognormal(3, 1.5, rows)),
            held(CLASSES, random.choice(["a", "b", "c"], p=[0.7, 0.2, 0.1], size=rows)),
        ):
            alarms += [found] if found.drifted or found.missing_moved else []
    assert alarms == []


def test_chance_alone_stays_below_the_noise_about_as_often_as_it_promises() -> None:
    """With a threshold of next to nothing only the noise holds back: one in ten is promised, and kept."""
    loud = {"numbers": 0, "text": 0}
    for seed in range(400):
        random = np.random.default_rng([11, seed])
        loud["numbers"] += held(TRAINING, random.lognormal(3, 1.5, 1000), false_alarm=0.1, drift=1e-9).drifted
        loud["text"] += held(CLASSES, random.choice(["a", "b", "c"], p=[0.7, 0.2, 0.1], size=1000), false_alarm=0.1, drift=1e-9).drifted
    assert 8 <= loud["numbers"] <= 80
    assert loud["text"] <= 60


@pytest.mark.parametrize(("rows", "factor"), [(200, 3), (1000, 1.5), (5000, 1.5)])
def test_amounts_in_another_unit_alarm(rows: int, factor: float) -> None:
    amounts = np.random.default_rng(3).lognormal(3, 1.5, rows) * factor
    found = held(TRAINING, amounts)
    assert found.drifted
    assert found.effect is not None
    assert found.effect > 0


def test_twenty_rows_of_the_wrong_kind_raise_no_alarm_and_are_shown() -> None:
    found = held(CLASSES, ["z"] * 20)
    assert not found.drifted
    assert found.distance is not None
    assert found.distance > 0.5
    assert found.new_values == 1.0


def test_a_small_change_that_is_beyond_doubt_is_none_of_the_project_s_concern() -> None:
    values = np.random.default_rng(5).choice(["a", "b", "c"], p=[0.65, 0.25, 0.1], size=200_000)
    found = held(CLASSES, values)
    assert found.distance is not None
    assert found.noise < found.distance < found.threshold
    assert not found.drifted


def test_a_feature_that_goes_missing_alarms_even_where_no_value_is_left() -> None:
    half = held(TRAINING, pa.array(np.random.default_rng(1).lognormal(3, 1.5, 1000), mask=np.arange(1000) % 2 == 0))
    assert half.missing_moved
    assert not half.drifted
    gone = held(TRAINING, pa.nulls(1000, pa.float32()))
    assert gone.missing_moved
    assert gone.distance is None
    assert gone.bars[0].after == 0


def test_a_column_s_own_threshold_goes_by_its_name_in_the_log_or_without_the_prefix() -> None:
    values = np.random.default_rng(5).choice(["a", "b", "c"], p=[0.5, 0.4, 0.1], size=5000)
    assert held(CLASSES, values).drifted
    assert not held(CLASSES, values, columns={"x": 0.4}).drifted
    assert not held(CLASSES, values, columns={"feature/x": 0.4}).drifted


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=5, max_size=150))
def test_a_column_is_no_distance_from_itself(values: list[float]) -> None:
    reference = column_of(values)
    assert reference.numbers is not None
    assert superiority(reference.numbers, reference.numbers) == pytest.approx(0, abs=1e-9)
    exact = column_of(values * 8)
    assert held(exact, np.array(values * 8, np.float32)).distance == pytest.approx(0, abs=0.25)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=100), st.lists(st.sampled_from("abcdef"), min_size=1, max_size=100))
def test_text_distance_is_the_same_both_ways_and_nothing_to_itself(before: list[str], after: list[str]) -> None:
    one, other = column_of(before * 20), column_of(after * 20)
    there, back = held(one, after * 20), held(other, before * 20)
    assert there.distance is not None
    assert back.distance is not None
    assert there.distance == pytest.approx(back.distance, abs=0.05)
    assert held(one, before * 20).distance == pytest.approx(0, abs=1e-9)
    assert one.texts is not None
    assert cohens_w(one.texts, one.texts) == pytest.approx(0, abs=1e-6)


def test_distance_grows_with_the_change_and_noise_falls_with_the_rows() -> None:
    distances = [held(TRAINING, np.random.default_rng(2).lognormal(3 + shift, 1.5, 4000)).distance for shift in (0, 0.3, 0.6, 1.2, 2.4)]
    assert distances == sorted(distances)  # type: ignore[type-var]
    noises = [held(CLASSES, (["a"] * 7 + ["b"] * 2 + ["c"]) * repeated).noise for repeated in (20, 100, 1000)]
    assert noises == sorted(noises, reverse=True)


def test_the_more_comparisons_share_a_run_s_chance_the_wider_the_limit() -> None:
    random = np.random.default_rng(4).lognormal(3, 1.5, 300)
    assert held(TRAINING, random, false_alarm=1e-6).limit > held(TRAINING, random, false_alarm=1e-2).limit


def test_effects_say_in_which_direction() -> None:
    assert TRAINING.numbers is not None
    higher, lower = column_of(np.full(100, 1e9)).numbers, column_of(np.full(100, -1e9)).numbers
    assert higher is not None
    assert lower is not None
    assert superiority(TRAINING.numbers, higher) == pytest.approx(1, abs=0.06)
    assert superiority(TRAINING.numbers, lower) == pytest.approx(-1, abs=0.06)
