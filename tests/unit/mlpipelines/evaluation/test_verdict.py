"""Who is blessed, and how it is told."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from mlpipelines.errors import ConfigError
from mlpipelines.evaluation.answers import Answers, Truth
from mlpipelines.evaluation.curves import curve_data
from mlpipelines.evaluation.judge import Contest, Measured, judge
from mlpipelines.evaluation.verdict import Opponent, Verdict, figure, from_json, to_json
from mlpipelines.evaluation.verdict_page import verdict_page
from mlpipelines.evaluation.verdict_table import verdict_table
from mlpipelines.project import Evaluation

CHAMPION = Opponent(kind="champion", name="champion version 3", version=3)
BASELINE = Opponent(kind="baseline", name="the baseline 'most frequent class'")
CLASSES = ("food", "fuel", "rail")


def contest(
    ours: float, theirs: float, rows: int = 4000, *, opponent: Opponent = CHAMPION, weak_team: float | None = None, **more: Any
) -> Contest:
    """Two models that are right for given shares of rows; `weak_team`: the challenger's share in the team `small`."""
    source = np.random.default_rng(1)
    true = source.integers(0, 3, rows)
    team = np.where(source.random(rows) < 0.2, "small", "large")
    luck = source.random(rows)
    skill = np.where((team == "small") & (weak_team is not None), weak_team or 0.0, ours)
    wrong = (true + 1) % 3
    return Contest(
        **{
            "model": "cards",
            "task": "classification",
            "truth": Truth(classes=CLASSES, ids=true),
            "challenger": Answers(ids=np.where(luck < skill, true, wrong)),
            "champion": Answers(ids=np.where(luck < theirs, true, wrong)),
            "opponent": opponent,
            "measured": Measured(size_mb=10.0, latency_ms=2.0),
            "columns": {"team": pa.chunked_array([pa.array(team)])},
            **more,
        }
    )


def rule(**values: Any) -> Evaluation:
    return Evaluation.model_validate({"resamples": 300, **values})


def test_a_clearly_better_model_is_blessed() -> None:
    verdict = judge(rule(), contest(0.9, 0.8))
    assert verdict.outcome == "blessed"
    assert verdict.title.startswith("Blessed: accuracy 0.89")
    assert "beats champion version 3 0.798 by 0.0" in verdict.title


def test_a_model_that_is_better_by_less_than_the_margin_is_rejected() -> None:
    verdict = judge(rule(margin=0.12), contest(0.9, 0.8))
    assert verdict.outcome == "rejected"
    assert [check.subject for check in verdict.failures] == ["accuracy"]
    assert "does not beat champion version 3" in verdict.title


def test_an_equal_model_is_not_better_but_is_not_worse_either() -> None:
    assert judge(rule(), contest(0.9, 0.9)).outcome == "rejected"
    verdict = judge(rule(rule="not_worse", margin=0.01), contest(0.9, 0.9))
    assert verdict.outcome == "blessed"
    assert "is not worse than champion version 3" in verdict.title


def test_the_first_model_must_beat_its_baseline_even_where_later_ones_need_not() -> None:
    assert judge(rule(rule="not_worse", margin=0.05), contest(0.8, 0.8, opponent=BASELINE)).outcome == "rejected"
    assert judge(rule(rule="not_worse", margin=0.05), contest(0.9, 0.8, opponent=BASELINE)).outcome == "blessed"


def test_the_champion_itself_is_unchanged() -> None:
    verdict = judge(rule(), contest(0.9, 0.9, unchanged=True))
    assert (verdict.outcome, verdict.blessed) == ("unchanged", False)
    assert verdict.failures == ()
    assert verdict.checks[0].reason == "the same answers"


def test_the_floor_holds_whatever_the_champion_does() -> None:
    verdict = judge(rule(floor=0.95), contest(0.9, 0.5))
    assert [check.subject for check in verdict.failures] == ["floor accuracy"]
    assert ", but 1 other check fails: floor accuracy" in verdict.title


def test_a_guard_stops_a_model_whose_other_metric_drops() -> None:
    source = np.random.default_rng(2)
    true = np.where(source.random(4000) < 0.97, 0, source.integers(1, 3, 4000))
    always_first = Answers(ids=np.zeros_like(true))
    careful = Answers(ids=np.where(source.random(4000) < 0.94, true, 2))
    verdict = judge(
        rule(guards=[{"metric": "macro_f1"}]),
        contest(0, 0, truth=Truth(classes=CLASSES, ids=true), challenger=always_first, champion=careful),
    )
    assert verdict.checks[0].passed
    assert [check.subject for check in verdict.failures] == ["guard macro_f1"]


def test_a_slice_that_gets_worse_stops_a_model_that_is_better_overall() -> None:
    verdict = judge(rule(slices=[{"column": "team"}]), contest(0.9, 0.8, weak_team=0.7))
    assert verdict.checks[0].passed
    assert [check.subject for check in verdict.failures] == ["slice team=small"]
    assert verdict.outcome == "rejected"


def test_a_small_slice_is_listed_and_not_judged() -> None:
    verdict = judge(rule(slices=[{"column": "team", "min_rows": 1500}]), contest(0.9, 0.8, weak_team=0.75))
    small = next(check for check in verdict.checks if check.slice == "team=small")
    assert (small.passed, small.reason) == (None, "fewer than 1500 rows")
    assert verdict.outcome == "blessed"


def test_many_small_values_are_told_in_one_line() -> None:
    columns = {"team": pa.chunked_array([pa.array([f"shop {place % 900}" for place in range(4000)])])}
    verdict = judge(rule(slices=[{"column": "team"}]), contest(0.9, 0.8, columns=columns))
    slices = [check for check in verdict.checks if check.check == "slice"]
    assert len(slices) == 6
    assert slices[-1].slice == "team: 895 more values"


def test_holm_holds_the_clearest_slice_to_the_strictest_level() -> None:
    """With a correction over slices the intervals are wider, the clearest slice's most."""
    source = np.random.default_rng(5)
    many = {"team": pa.chunked_array([pa.array(source.choice([f"t{i}" for i in range(10)], 4000))])}
    found = judge(rule(slices=[{"column": "team"}]), contest(0.9, 0.85, columns=many))
    checks = [check for check in found.checks if check.check == "slice"]
    widths = [
        check.difference.high - check.difference.low
        for check in checks
        if check.difference and check.difference.high and check.difference.low is not None
    ]
    assert len(widths) == 10
    alone = judge(rule(slices=[{"column": "team"}]), contest(0.9, 0.85, columns={"team": pa.chunked_array([pa.array(["all"] * 4000)])}))
    (only,) = [check for check in alone.checks if check.check == "slice"]
    main = alone.checks[0].difference
    assert only.difference is not None
    assert main is not None
    assert only.difference.low == pytest.approx(main.low, abs=0.003)
    assert np.mean(widths[-3:]) > np.mean(widths[:3]) * 1.05


def test_a_slice_says_how_many_rows_would_show_that_it_does_not_drop() -> None:
    settings = rule(slices=[{"column": "team", "max_drop": 0.03}], rule="not_worse", margin=0.05)
    verdict = judge(settings, contest(0.87, 0.87, rows=1500, weak_team=0.85))
    (small,) = verdict.failures
    assert small.slice == "team=small"
    assert "not shown: the interval reaches −0.0" in small.reason
    assert "rows would show it if the difference stays" in small.reason


def test_lower_is_better_where_the_metric_counts_errors() -> None:
    true = np.random.default_rng(1).normal(100, 20, 2000)
    noise = np.random.default_rng(2).normal(0, 1, 2000)
    numbers = contest(
        0,
        0,
        task="regression",
        truth=Truth(values=true),
        challenger=Answers(values=true + noise),
        champion=Answers(values=true + 2 * noise),
    )
    verdict = judge(rule(metric="mae", floor=1.0), numbers)
    assert verdict.outcome == "blessed"
    assert verdict.checks[0].difference is not None
    assert verdict.checks[0].difference.value > 0


def test_what_is_too_large_or_too_slow_is_rejected() -> None:
    verdict = judge(rule(budget={"size_mb": 5, "latency_ms": 1}), contest(0.9, 0.8))
    assert [check.subject for check in verdict.failures] == ["size", "latency"]
    assert judge(rule(budget={"size_mb": None, "latency_ms": None}), contest(0.9, 0.8)).blessed


def test_a_metric_that_the_answers_do_not_allow_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.metric is 'log_loss'.*accuracy"):
        judge(rule(metric="log_loss"), contest(0.9, 0.8))


def a_full_verdict() -> Verdict:
    settings = rule(slices=[{"column": "team", "min_rows": 900}], guards=[{"metric": "macro_f1"}], floor=0.5)
    return judge(settings, contest(0.9, 0.8, weak_team=0.3), facts={"run": "r<1>", "data hash": "abc"})


def test_json_keeps_everything_and_has_no_nan() -> None:
    verdict = a_full_verdict()
    text = to_json(verdict)
    assert from_json(text) == verdict
    assert "NaN" not in text
    values = json.loads(text)
    assert values["blessed"] is False
    assert values["metrics"]["size_mb"] == 10.0


def test_the_page_is_whole_escaped_and_needs_nothing_from_elsewhere() -> None:
    verdict = a_full_verdict()
    found = contest(0.9, 0.8)
    page = verdict_page(verdict, curve_data(found.truth, found.challenger))
    assert page.startswith("<!doctype html>")
    assert "http" not in page.replace("http-equiv", "")
    assert "r&lt;1&gt;" in page
    assert "team=large" in page
    assert "not judged" in page
    assert '<span class="dim">fewer than' in page
    assert "&lt;span" not in page
    assert all(name in page for name in CLASSES)


def test_the_terminal_table_has_every_check() -> None:
    out = io.StringIO()
    Console(file=out, width=140).print(verdict_table(a_full_verdict()))
    text = out.getvalue()
    assert "Rejected" in text
    assert "version 3" in text
    for subject in ("accuracy", "guard macro_f1", "floor accuracy", "slice team=large", "size", "latency", "weighted_f1"):
        assert subject in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8421, "0.842"),
        (-0.01, "−0.010"),
        (12.34, "12.3"),
        (12345.6, "12,346"),
        (0.0, "0.000"),
        (-0.0, "0.000"),
        (0.00004, "4.0e−05"),
        (float("nan"), "–"),
        (None, "–"),
    ],
)
def test_figures_read_well(value: float | None, text: str) -> None:
    assert figure(value) == text
