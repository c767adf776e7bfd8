"""Agreement and accuracy from reviews, against figures that were published or that can be worked out by hand."""

from __future__ import annotations

import random

import pytest

from mlserving.review.agreement import Said, accuracy, alpha, confirmed, kappas
from mlserving.review.choose import Candidate, Shares, choose


def said(item: int, reviewer: str, label: str, predicted: str = "a", settled: bool = False) -> Said:
    return Said(item=item, reviewer=reviewer, label=label, predicted=predicted, why="random", probability=1.0, settled=settled)


def test_alpha_is_that_of_krippendorffs_own_example() -> None:
    """Two observers, twelve units, nominal data (Computing Krippendorff's Alpha-Reliability, 2011, part B): 0.692."""
    first, second = (
        ["a", "a", "b", "b", "d", "c", "c", "c", "e", "d", "d", "a"],
        ["b", "a", "b", "b", "b", "c", "c", "c", "e", "d", "d", "d"],
    )
    figure = alpha([*(said(n, "x", label) for n, label in enumerate(first)), *(said(n, "y", label) for n, label in enumerate(second))])
    assert figure.n == 12
    assert figure.value == pytest.approx(0.692, abs=0.001)


def test_kappa_is_cohens() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: agreed 0.7, by chance 0.5."""
    table = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    answers = [each for n, (x, y) in enumerate(table) for each in (said(n, "x", x), said(n, "y", y))]
    (figure,) = kappas(answers).values()
    assert (figure.n, figure.value) == (50, pytest.approx(0.4))


def test_people_who_always_said_the_same_one_class_have_no_agreement_to_measure() -> None:
    answers = [said(n, who, "a") for n in range(5) for who in "xy"]
    assert alpha(answers).value is None
    assert kappas(answers)["x", "y"].value is None


def test_full_agreement_is_one_and_opposite_answers_are_below_zero() -> None:
    assert alpha([said(n, who, "ab"[n % 2]) for n in range(6) for who in "xyz"]).value == pytest.approx(1.0)
    assert (alpha([said(n, who, "ab"[(n + (who == "x")) % 2]) for n in range(6) for who in "xy"]).value or 0) < 0


def test_a_lead_who_settles_a_case_is_no_second_opinion() -> None:
    assert alpha([said(1, "x", "a"), said(1, "lead", "b", settled=True)]).n == 0


def test_confirmed_is_by_predicted_class() -> None:
    shares = confirmed([said(1, "x", "a"), said(2, "x", "b"), said(3, "x", "b", predicted="b")])
    assert (shares["a"].value, shares["a"].n, shares["b"].value) == (0.5, 2, 1.0)
    assert (shares["a"].low, shares["a"].high) == (pytest.approx(0.0945, abs=1e-4), pytest.approx(0.9055, abs=1e-4))


def test_accuracy_is_that_of_the_whole_log_although_odd_cases_are_looked_at_most() -> None:
    """A model that is right on 94 % of its sure rows and on half of its unsure ones: what was seen is much worse than the log."""
    dice = random.Random(3)
    estimates, raw = [], []
    for _ in range(150):
        certainty = {f"{dice.getrandbits(64):x}": dice.random() for _ in range(400)}
        right = {name: dice.random() < (0.5 if sure < 0.2 else 0.94) for name, sure in certainty.items()}
        batch = [Candidate(prediction_id=name, row=0, label="a", certainty=sure) for name, sure in certainty.items()]
        chosen = choose(batch, 60, Shares(double=0, minimum=0))
        answers = [
            Said(
                item=n,
                reviewer="x",
                label="a" if right[choice.candidate.prediction_id] else "b",
                predicted="a",
                why=choice.why,
                probability=choice.probability,
            )
            for n, choice in enumerate(chosen)
        ]
        found = accuracy(answers, {(str(why), "a"): sum(c.why == why for c in chosen) for why in {c.why for c in chosen}})
        assert found is not None
        estimates.append(found.value)
        raw.append(sum(each.label == "a" for each in answers) / len(answers))
    truth = 0.2 * 0.5 + 0.8 * 0.94
    assert sum(estimates) / 150 == pytest.approx(truth, abs=0.01)
    assert sum(raw) / 150 < truth - 0.1
