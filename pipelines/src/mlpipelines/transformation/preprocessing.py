"""A project's `preprocessing_fn`, checked: what it may not do is said in words that name its file and line.

TensorFlow Transform calls it several times, deep inside its own machinery and, on a cluster, in another process. So the
check travels with the function, as a callable of its own. Numbers of any width leave as float32 or int64, the two that
Arrow, TensorFlow Transform and Keras agree on. The story goes on in `steps/transform.py`.
"""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from mlpipelines.artifacts import KEY, LABEL
from mlpipelines.errors import ConfigError
from mlpipelines.project_code import load_code

MODULE = "features"
FUNCTION = "preprocessing_fn"
_AGAIN = "Correct it, then `millrace run` again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """The project's function with its checks around it."""

    file: Path
    function: Callable[[dict[str, Any]], Any]

    def __call__(self, inputs: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Call the function.

        Raises:
            ConfigError: it raises, or returns something else than a dict of dense [batch] or [batch, n] tensors.
        """
        try:
            outputs = self.function(inputs)
        except ConfigError:
            raise
        except Exception as error:  # whatever a person's code may raise
            raise ConfigError(f"{self.failure(error)}\n{_AGAIN}") from error
        if not isinstance(outputs, Mapping) or not outputs:
            raise self._wrong(f"returns {type(outputs).__name__}, not a dict of at least one tensor")
        return {name: self._checked(name, value) for name, value in outputs.items()}

    def failure(self, error: BaseException) -> str:
        """What went wrong, and the project's own line that was running."""
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(self.file.parent)]
        where = f"\n  {Path(own[-1].filename).name}, line {own[-1].lineno}: {own[-1].line}" if own else ""
        return f"{self.file}: {FUNCTION} fails: {type(error).__name__}: {error}{where}"

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError(f"{self.file}: {FUNCTION} {what}. {_AGAIN}")

    def _checked(self, name: str, value: Any) -> tf.Tensor:
        if name in (KEY, LABEL):
            raise self._wrong(f"returns an output named {name!r}, which Millrace uses itself")
        if isinstance(value, tf.SparseTensor | tf.RaggedTensor):
            kind = "sparse" if isinstance(value, tf.SparseTensor) else "ragged"
            raise self._wrong(
                f"returns {name!r} as a {kind} tensor. Make it dense and of a fixed length, for example with "
                f"{_TO_DENSE[kind]}, which pads and cuts to [batch, n]"
            )
        if not tf.is_tensor(value):
            raise self._wrong(f"returns {name!r} as {type(value).__name__}, not a tensor")
        if value.shape.rank not in (1, 2) or None in value.shape.as_list()[1:]:
            raise self._wrong(
                f"returns {name!r} of shape {value.shape}; it must be [batch] or [batch, n] with n known. "
                "tf.reshape changes it; tf.ensure_shape(x, [None, n]) states what TensorFlow cannot see"
            )
        return _canonical(value)


_TO_DENSE = {
    "sparse": "tf.RaggedTensor.from_sparse(x).to_tensor(default_value=0, shape=[None, n])",
    "ragged": "x.to_tensor(default_value=0, shape=[None, n])",
}


def load_preprocessing(project_dir: Path) -> Preprocessing:
    """The project's function.

    Raises:
        ConfigError: `features.py` is missing, fails on import or has no `preprocessing_fn`.
    """
    module = load_code(project_dir, MODULE)
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        raise ConfigError(f"{project_dir / 'features.py'} has no function {FUNCTION!r}. `millrace new NAME` shows one; add it.")
    return Preprocessing(file=project_dir / f"{MODULE}.py", function=function)


def own_modules(project_dir: Path) -> dict[str, Any]:
    """The project's modules that are loaded by now: `features` and the neighbours that it imports."""
    folders = tuple(f"{folder}{os.sep}" for folder in {project_dir.absolute(), project_dir.resolve()})
    files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
    return {name: sys.modules[name] for name, file in sorted(files.items()) if file.startswith(folders) and file.endswith(".py")}


def analysis_hash(project_dir: Path, *facts: str) -> str:
    """SHA-256 over the text of the project's loaded modules and `facts`: what an analyzer's result depends on beside the rows."""
    digest = hashlib.sha256()
    for name, module in own_modules(project_dir).items():
        digest.update(name.encode() + b"\0" + Path(module.__file__).read_bytes() + b"\0")
    for fact in facts:
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest()


def _canonical(value: tf.Tensor) -> tf.Tensor:
    if value.dtype.is_floating:
        return tf.cast(value, tf.float32)
    if value.dtype.is_integer or value.dtype.is_bool:
        return tf.cast(value, tf.int64)
    return value
