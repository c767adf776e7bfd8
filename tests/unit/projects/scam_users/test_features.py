"""A number's place among the training rows': in order, in the middle of its equals, from 0 to 1; and what the contract and project.yaml agree on."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpipelines.features.contract import load_views
from mlpipelines.project_file import load_project
from project_modules import module_of

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "scam-users"
NUMBERS = st.floats(-1000, 1000, width=32)

features = module_of(PROJECT, "features")


def placed(features: ModuleType, values: list[float], bounds: list[float]) -> list[float]:
    numbers, quantiles = np.array(values, np.float32)[:, None], np.array([sorted(bounds)], np.float32)
    return [float(place) for place in features.places_among(tf.constant(numbers), tf.constant(quantiles))[:, 0]]


@settings(max_examples=60)
@given(st.lists(NUMBERS, min_size=1, max_size=12), st.lists(NUMBERS, min_size=1, max_size=9))
def test_places_keep_the_order_and_lie_between_0_and_1(features: ModuleType, values: list[float], bounds: list[float]) -> None:
    places = placed(features, sorted(values), bounds)
    assert (np.diff(places) >= -1e-6).all()
    assert min(places) >= 0
    assert max(places) <= 1


def test_equal_quantiles_share_their_middle_and_between_two_it_is_interpolated(features: ModuleType) -> None:
    bounds = [0.0, 0.0, 0.0, 4.0]
    assert placed(features, [0.0, 2.0, 4.0, -1.0, 9.0], bounds) == pytest.approx([1.5 / 4, 3 / 4, 3.5 / 4, 0.0, 1.0])


def test_what_is_missing_is_0(features: ModuleType) -> None:
    assert features.known(tf.constant([[1.0, np.nan]])).numpy().tolist() == [[1.0, 0.0]]


def test_the_contract_gives_every_column_of_the_project_and_the_log_keeps_every_feature() -> None:
    project, views = load_project(PROJECT), load_views(PROJECT / "feature_views.yaml")
    assert set(project.column_types) == set(views.columns())
    assert list(project.features) == list(views.features)
    assert project.deployment.log.features == list(project.features), "else a verdict could not be learned from"


def test_the_contract_looks_ahead_as_far_as_the_split_keeps_apart() -> None:
    project, views = load_project(PROJECT), load_views(PROJECT / "feature_views.yaml")
    assert views.label is not None
    assert project.split.gap_days == views.label.within_days


def test_the_real_table_goes_through_the_same_code() -> None:
    other = load_project(PROJECT, overlays=[PROJECT / "credit_default.yaml"])
    assert len(other.features) == 23
    assert other.source.kind == "parquet"
    assert other.evaluation.metric == "recall_at_capacity"
