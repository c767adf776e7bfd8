"""On what a model is trained: one device, all GPUs of a machine, or several machines, and in which precision.

What to do is decided from plain facts (the setting, TF_CONFIG, the GPUs) and tested without any of them; `place` asks
TensorFlow for the facts and opens the strategy. Keras 3.15's `fit` does not run under `MultiWorkerMirroredStrategy` as it
stands; `prepare_for_fit` says why and closes the gap. Called by `train` before anything else touches TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import tensorflow as tf

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.project import Training
from mlpipelines.training.row_windows import Shard

StrategyName = Literal["one", "mirrored", "multi-worker"]

_TENSOR_CORES = (7, 0)
_BFLOAT16 = (8, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where this process trains, and its place among the workers."""

    name: StrategyName
    strategy: tf.distribute.Strategy | None
    """None on one device: Keras is quickest without any strategy."""
    shard: Shard
    precision: str
    devices: tuple[str, ...]
    gpus: int
    """Those of this process, whether or not the strategy uses them all: nobody else has them meanwhile."""

    @property
    def replicas(self) -> int:
        """Copies of the model that are trained together, over all workers."""
        return int(self.strategy.num_replicas_in_sync) if self.strategy else 1

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes checkpoints and outputs."""
        return self.shard.worker == 0

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Models built inside are trained with this strategy and precision."""
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.precision)
        try:
            with self.strategy.scope() if self.strategy else contextlib.nullcontext():
                yield
        finally:
            keras.config.set_dtype_policy(before)


def read_shard(environment: Mapping[str, str]) -> Shard:
    """This process's place in the cluster that TF_CONFIG describes; alone without one.

    Raises:
        ConfigError: TF_CONFIG is not the JSON that TensorFlow defines, or names a role that does not train.
    """
    text = environment.get("TF_CONFIG")
    if not text:
        return Shard()
    try:
        config = json.loads(text)
        chiefs, workers = config["cluster"].get("chief", []), config["cluster"].get("worker", [])
        role, index = config["task"]["type"], int(config["task"]["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"TF_CONFIG is not a cluster and a task in JSON ({error!r}): {text!r}. Unset it to train on this machine."
        ) from error
    count = len(chiefs) + len(workers)
    place = {"chief": index, "worker": len(chiefs) + index}.get(role)
    if place is None or not 0 <= place < count:
        raise ConfigError(f"TF_CONFIG gives this process the task {role!r} {index}, which is no chief or worker of its cluster: {text!r}.")
    return Shard(worker=place, workers=count)


def choose_strategy(setting: str, *, workers: int, gpus: int) -> StrategyName:
    """The strategy for what is there.

    Raises:
        ConfigError: several workers are asked for and TF_CONFIG names none.
    """
    if setting == "multi-worker" and workers == 1:
        raise ConfigError("training.strategy is 'multi-worker', but TF_CONFIG names no second worker. Set it to 'auto' in project.yaml.")
    if setting == "multi-worker" or (setting == "auto" and workers > 1):
        return "multi-worker"
    return "mirrored" if setting == "mirrored" or (setting == "auto" and gpus > 1) else "one"


def choose_precision(setting: str, capabilities: Sequence[tuple[int, int]]) -> str:
    """Keras' dtype policy for GPUs of these compute capabilities (none: CPU). The weakest GPU decides."""
    weakest = min(capabilities, default=None)
    if setting == "off" or (setting == "auto" and (weakest is None or weakest < _TENSOR_CORES)):
        return "float32"
    return "mixed_float16" if weakest is not None and _TENSOR_CORES <= weakest < _BFLOAT16 else "mixed_bfloat16"


def place(training: Training, environment: Mapping[str, str]) -> Placement:
    """Open the strategy. Must come before any other use of TensorFlow in the process, or the workers cannot find each other.

    Raises:
        ConfigError: as `read_shard` and `choose_strategy`.
        Unavailable: the other workers did not answer.
    """
    shard = read_shard(environment)
    gpus = tf.config.list_physical_devices("GPU")
    name = choose_strategy(training.strategy, workers=shard.workers, gpus=len(gpus))
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    strategy = _open(name)
    return Placement(
        name=name,
        strategy=strategy,
        shard=shard if name == "multi-worker" else Shard(),
        precision=choose_precision(training.mixed_precision, capabilities),
        devices=tuple(strategy.extended.worker_devices) if strategy else tuple(gpu.name for gpu in gpus[:1]) or ("CPU",),
        gpus=len(gpus),
    )


def _open(name: StrategyName) -> tf.distribute.Strategy | None:
    if name == "one":
        return None
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise Unavailable(f"The other workers of TF_CONFIG did not answer: {error.message}. Start all of them, then run again.") from error


def distributed(placement: Placement, dataset: Callable[[Shard], tf.data.Dataset]) -> Any:
    """`dataset(shard)`, made of batches for one replica, as `fit` takes it under this placement."""
    if placement.strategy is None:
        return dataset(placement.shard)
    return placement.strategy.distribute_datasets_from_function(lambda _: dataset(placement.shard))


def prepare_for_fit(model: keras.Model, placement: Placement, example: Any) -> None:
    """Create all variables, and let `fit` run under several workers. `example` is one batch of training data.

    Keras 3.15 fails there twice. It builds the model from a batch that it reduces over the replicas, which
    `MultiWorkerMirroredStrategy` refuses for dicts of features (and no strategy can do for strings): so the model is built
    here. And it averages the metrics that a step returns along axis 0, which scalars do not have
    (tensorflow/tensorflow#72388): so the steps return them with one.
    """
    if placement.strategy is None:
        model.optimizer.build(model.trainable_variables)
        return
    with placement.scope():
        model._symbolic_build(data_batch=example)  # noqa: SLF001 (what fit would call with its reduced batch)
    model._maybe_symbolic_build = lambda **_: None  # noqa: SLF001 (done above)
    if placement.name == "multi-worker":
        model.train_step = _with_axis(model.train_step)
        model.test_step = _with_axis(model.test_step)


def _with_axis(step: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    return lambda data: {name: tf.reshape(value, [1]) for name, value in step(data).items()}
