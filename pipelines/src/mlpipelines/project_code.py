"""The project's own Python: `features.py` and `model.py`, and what they are handed.

The contract, the same for every kind of model:

- `features.preprocessing_fn(inputs) -> outputs`, as TensorFlow Transform has it. `inputs` holds the declared features as
  dense tensors of shape [batch] (a missing string is "", a missing float is NaN; integers and timestamps are never
  missing) and list features as `tf.SparseTensor`s. Outputs are dense, [batch] or [batch, n].
- `model.build(context) -> keras.Model`, compiled. It takes a dict of the transformed features and returns, by task:
  classification and multilabel a probability for each class [batch, classes]; detection a score [batch, 1], higher for
  what is looked for; similarity an embedding of unit length [batch, n]; regression a value [batch, 1]. A dict may hold more
  ([batch] or [batch, n], under names of its own): it is served beside (reasons for a score, for example). A model with a method
  `explain(features) -> dict` explains itself to those who ask why (signature `explain`): `explained_by` (text) and `attributions` (numbers), both
  [batch, n], and if it likes `explained_by_label` (class ids) [batch, n] and `base_score` [batch].
- `model.batches(dataset, context) -> dataset`, optional: changes the training batches `(features, label[, weight])`,
  for augmentation, for mining pairs or negatives. Without a training label batches are `(features,)`, and the model
  brings its own loss (`add_loss`).
- `model.finish(model, context, examples) -> keras.Model`, optional: after fitting, build what is served from the trained
  model and examples (an index of neighbours, a calibration, a threshold). `examples()` starts a new iteration over
  unshuffled training batches, `examples("validation")` one over the rows that watched training: the model was not fitted to
  them, so they are what a calibration or a threshold is taken from; `keys=True` puts each row's key among its features, as `artifacts.KEY`. A run with `training.reuse` calls it without a training before it: on an
  earlier training's model, with today's examples and classes (`build` gets the context of then).
- `decisions.decide(rows) -> pyarrow.Table`, optional, in a module of its own: what `millrace batch` decides from the scores of many rows
  together (who is matched with whom, a limit over all). `rows` is one table of all rows that a run scored: the key, the columns of the
  input that `decisions.COLUMNS` (a tuple of names) asks for, as they were, and the model's outputs as `output/<name>`. It depends on
  these rows only, in any order, and has neither clock nor chance, so that a call that was killed decides the same again.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from mlpipelines.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec:
    """One transformed feature: its TensorFlow dtype name and its shape without the batch dimension."""

    dtype: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContext:
    """What `model.py` may know."""

    features: Mapping[str, FeatureSpec]
    """The transformed features."""
    task: str = ""
    """The project's task."""
    classes: tuple[str, ...] = ()
    """Class names in the order of their ids; empty without classes."""
    class_rows: tuple[int, ...] = ()
    """Training rows that have each class, for a label of the kinds `class` and `classes`: what a loss may weigh classes by."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """`training.parameters` of project.yaml."""
    train_rows: int = 0
    batch_size: int = 0
    """Rows in a batch of one replica."""
    replicas: int = 1
    """GPUs, or processes without one, that train together: a step is a batch of each."""
    epochs: int = 0
    seed: int = 0
    """`training.seed`, for whatever `batches` draws."""
    vocabularies: Mapping[str, int] = field(default_factory=dict)
    """Size of each vocabulary that `features.py` made with a `vocab_filename`, out-of-vocabulary buckets not counted."""
    capacity_share: float | None = None
    """The share of rows that people can look at: `evaluation.capacity` over the time that the training rows span; None without a capacity."""

    @property
    def steps(self) -> int:
        """Of the whole training, at least 1: what a learning rate falls over. An epoch's last step may have fewer rows."""
        return max(1, -(-self.train_rows // max(1, self.batch_size * self.replicas)) * self.epochs)

    def settings(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """The project's `defaults`, with what `training.parameters` of project.yaml sets in their place.

        Raises:
            ValueError: it sets something that is not among them.
        """
        unknown = sorted(set(self.parameters) - set(defaults))
        if unknown:
            raise ValueError(f"training.parameters.{unknown[0]} means nothing to model.py; it reads {', '.join(defaults)}")
        return {**defaults, **self.parameters}


def load_code(folder: Path, module: str) -> ModuleType:
    """Import `folder/module.py` afresh under its own name, with the folder on the path so that it can import its neighbours.

    Raises:
        ConfigError: the file is missing, or it fails on import.
    """
    file = folder / f"{module}.py"
    if not file.is_file():
        raise ConfigError(f"{file} does not exist. `millrace new NAME` writes a project with all its files.")
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(folder))]  # before any other project's
    sys.modules.pop(module, None)
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ConfigError(f"{file} fails on import: {type(error).__name__}: {error}") from error


def code_hash(folder: Path, *modules: str) -> str:
    """SHA-256 over the named modules' text; a missing one counts as empty. The cache key of what they produce."""
    digest = hashlib.sha256()
    for module in modules:
        file = folder / f"{module}.py"
        digest.update(file.read_bytes() if file.is_file() else b"")
        digest.update(b"\0")
    return digest.hexdigest()
