"""The cut of a class is where its F1 is best, and moving it to 0.5 changes no order."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project_modules import module_of

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "image-content"

thresholds = module_of(PROJECT, "thresholds")


def f1(truth: np.ndarray, found: np.ndarray) -> float:
    return float(2 * (truth & found).sum() / max(1, truth.sum() + found.sum()))


def moved(thresholds: ModuleType, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Scores after what `model.Served` does with them."""
    logits = np.log(scores) - np.log1p(-scores)
    result: np.ndarray = 1.0 / (1.0 + np.exp(-(logits + thresholds.shifts(thresholds.best_cuts(truth, scores)))))
    return result


@given(seed=st.integers(0, 10_000), share=st.floats(0.15, 0.85), levels=st.integers(2, 60))
def test_no_other_cut_has_a_better_f1_and_the_order_of_rows_stays(thresholds: ModuleType, seed: int, share: float, levels: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((200, 1)) < share
    scores = np.clip(np.round(rng.integers(0, levels, (200, 1)) / levels * 0.7 + 0.25 * truth, 3), 0.01, 0.99)
    after = moved(thresholds, scores, truth)
    best = max(f1(truth, scores >= cut) for cut in np.unique(scores))
    assert f1(truth, after >= 0.5) == pytest.approx(best)
    assert (np.diff(after[np.argsort(scores[:, 0]), 0]) > -1e-9).all()


def test_a_class_of_a_handful_of_rows_keeps_its_cut(thresholds: ModuleType) -> None:
    truth, scores = np.zeros((100, 2), bool), np.full((100, 2), 0.2)
    truth[:9, 0], scores[:9, 0] = True, 0.3
    truth[:10, 1], scores[:10, 1] = True, 0.3
    assert thresholds.best_cuts(truth, scores).tolist() == [0.5, pytest.approx(0.25)]


def test_a_cut_at_a_half_moves_nothing(thresholds: ModuleType) -> None:
    assert thresholds.shifts(np.array([0.5])).tolist() == [0.0]
    assert np.isfinite(thresholds.shifts(np.array([0.0, 1.0]))).all()
