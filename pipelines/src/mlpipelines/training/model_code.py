"""The project's `model.py`, called safely: whatever fails in it is told with its function and line, as something to fix there."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import tensorflow as tf

from mlpipelines.errors import ConfigError, MillraceError
from mlpipelines.project_code import ModelContext, load_code


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCode:
    """`model.py` and its functions (`project_code` has the contract)."""

    folder: Path
    module: ModuleType

    @property
    def file(self) -> Path:
        """`model.py` itself."""
        return self.folder / "model.py"

    @property
    def changes_batches(self) -> bool:
        """Whether there is a `batches` of the project's own."""
        return hasattr(self.module, "batches")

    @property
    def finishes(self) -> bool:
        """Whether there is a `finish` of the project's own."""
        return hasattr(self.module, "finish")

    def build(self, context: ModelContext) -> keras.Model:
        """A new, compiled model.

        Raises:
            ConfigError: `build` fails, or returns something else.
        """
        with self.calling("build()"):
            model = self._function("build")(context)
        if not isinstance(model, keras.Model) or getattr(model, "optimizer", None) is None:
            raise ConfigError(
                f"{self.file}: build() must return a compiled keras.Model, with `import keras` (not tf.keras); "
                f"it returned {type(model).__name__}. Correct it, then `millrace run` again."
            )
        return model

    def batches(self, dataset: tf.data.Dataset, context: ModelContext) -> tf.data.Dataset:
        """The training batches as the project changes them; unchanged without a `batches`.

        Raises:
            ConfigError: `batches` fails, or returns no dataset.
        """
        if not self.changes_batches:
            return dataset
        with self.calling("batches()"):
            changed = self._function("batches")(dataset, context)
        if not isinstance(changed, tf.data.Dataset):
            raise ConfigError(f"{self.file}: batches() must return a tf.data.Dataset; it returned {type(changed).__name__}.")
        return changed

    def finish(self, model: keras.Model, context: ModelContext, examples: Callable[..., tf.data.Dataset]) -> keras.Model:
        """What is served: `finish`'s result, or `model` itself without one.

        Raises:
            ConfigError: `finish` fails, or returns no model.
        """
        if not self.finishes:
            return model
        with self.calling("finish()"):
            finished = self._function("finish")(model, context, examples)
        if not isinstance(finished, keras.Model):
            raise ConfigError(f"{self.file}: finish() must return a keras.Model; it returned {type(finished).__name__}.")
        return finished

    @contextlib.contextmanager
    def calling(self, what: str) -> Iterator[None]:
        """Tell a failure inside as one of `what` in `model.py`.

        Raises:
            ConfigError: anything but our own errors was raised inside.
        """
        try:
            yield
        except MillraceError:
            raise
        except Exception as error:  # the project's code may raise anything
            raise ConfigError(
                f"{self.file}: {what} fails{self._line(error)}: {type(error).__name__}: {error}\nCorrect it, then `millrace run` again."
            ) from error

    def _function(self, name: str) -> Callable[..., Any]:
        function = getattr(self.module, name, None)
        if not callable(function):
            raise ConfigError(f"{self.file} has no function {name}(). `millrace new NAME` writes a model.py to start from.")
        return function  # type: ignore[no-any-return]  # the project's code is not typed

    def _line(self, error: Exception) -> str:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == self.folder]
        return f" in {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""


def load_model_code(folder: Path) -> ModelCode:
    """Import the project's `model.py`.

    Raises:
        ConfigError: it is missing or fails on import.
    """
    return ModelCode(folder=folder, module=load_code(folder, "model"))
