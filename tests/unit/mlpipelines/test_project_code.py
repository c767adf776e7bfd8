"""What a model is told of its training."""

from __future__ import annotations

import pytest

from mlpipelines.project_code import ModelContext


@pytest.mark.parametrize(("replicas", "batch_size", "steps"), [(1, 100, 33), (2, 50, 33), (4, 25, 33), (4, 100, 9)])
def test_a_step_is_a_batch_of_each_replica(replicas: int, batch_size: int, steps: int) -> None:
    context = ModelContext(features={}, train_rows=1050, batch_size=batch_size, replicas=replicas, epochs=3)
    assert context.steps == steps


def test_a_training_without_rows_has_a_step() -> None:
    assert ModelContext(features={}).steps == 1


def test_parameters_of_the_project_replace_defaults_and_an_unknown_one_is_named() -> None:
    context = ModelContext(features={}, parameters={"width": 8})
    assert context.settings({"width": 64, "depth": 2}) == {"width": 8, "depth": 2}
    with pytest.raises(ValueError, match=r"training\.parameters\.width .*depth"):
        context.settings({"depth": 2})
