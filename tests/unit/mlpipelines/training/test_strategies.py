"""On what a model is trained follows from the setting, TF_CONFIG and the GPUs that are there."""

from __future__ import annotations

import json

import pytest

from mlpipelines.errors import ConfigError
from mlpipelines.training.row_windows import Shard
from mlpipelines.training.strategies import choose_precision, choose_strategy, read_shard


def tf_config(role: str, index: int, **cluster: list[str]) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": role, "index": index}})}


@pytest.mark.parametrize(
    ("setting", "workers", "gpus", "strategy"),
    [
        ("auto", 1, 0, "one"),
        ("auto", 1, 1, "one"),
        ("auto", 1, 4, "mirrored"),
        ("auto", 3, 0, "multi-worker"),
        ("auto", 3, 4, "multi-worker"),
        ("one", 3, 4, "one"),
        ("mirrored", 1, 1, "mirrored"),
        ("multi-worker", 2, 0, "multi-worker"),
    ],
)
def test_the_strategy_follows_from_what_is_there(setting: str, workers: int, gpus: int, strategy: str) -> None:
    assert choose_strategy(setting, workers=workers, gpus=gpus) == strategy


def test_several_workers_need_a_cluster() -> None:
    with pytest.raises(ConfigError, match="TF_CONFIG names no second worker"):
        choose_strategy("multi-worker", workers=1, gpus=0)


@pytest.mark.parametrize(
    ("setting", "capabilities", "policy"),
    [
        ("auto", [], "float32"),
        ("auto", [(6, 1)], "float32"),
        ("auto", [(7, 0)], "mixed_float16"),
        ("auto", [(7, 5)], "mixed_float16"),
        ("auto", [(8, 0)], "mixed_bfloat16"),
        ("auto", [(9, 0), (9, 0)], "mixed_bfloat16"),
        ("auto", [(9, 0), (6, 0)], "float32"),
        ("off", [(9, 0)], "float32"),
        ("on", [], "mixed_bfloat16"),
        ("on", [(7, 5)], "mixed_float16"),
    ],
)
def test_mixed_precision_is_for_gpus_that_have_it(setting: str, capabilities: list[tuple[int, int]], policy: str) -> None:
    assert choose_precision(setting, capabilities) == policy


def test_without_tf_config_a_process_is_alone() -> None:
    assert read_shard({}) == Shard(worker=0, workers=1)


def test_the_chief_is_the_first_of_all_workers() -> None:
    assert read_shard(tf_config("chief", 0, chief=["a:1"], worker=["b:1", "c:1"])) == Shard(worker=0, workers=3)
    assert read_shard(tf_config("worker", 1, chief=["a:1"], worker=["b:1", "c:1"])) == Shard(worker=2, workers=3)
    assert read_shard(tf_config("worker", 0, worker=["b:1", "c:1"])) == Shard(worker=0, workers=2)


@pytest.mark.parametrize("text", ["{", "[]", '{"cluster": {}}', json.dumps({"cluster": {"ps": ["a"]}, "task": {"type": "ps", "index": 0}})])
def test_a_tf_config_that_makes_no_sense_is_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="TF_CONFIG"):
        read_shard({"TF_CONFIG": text})
