"""What a model's output means, by task: which shapes are right, and what a served model answers.

One table, `TASKS`. `train` checks a new model's output against it, `export` turns outputs into answers with it, inside the
exported graph, so that what is evaluated, published and served is one function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from mlpipelines.errors import ConfigError
from mlpipelines.training.explanations import ATTRIBUTIONS, BASE, EXPLAINED_BY, EXPLAINED_BY_LABEL

Answers = dict[str, tf.Tensor]
_WHY = frozenset({EXPLAINED_BY, ATTRIBUTIONS, EXPLAINED_BY_LABEL, BASE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One row of the table."""

    output: str
    """The name under which a model that returns a dict gives its output; also a name among the answers."""
    width: Callable[[int], int | None]
    """The output's last dimension for so many classes; None: any."""
    expects: str
    answers: Callable[[Mapping[str, tf.Tensor], Sequence[str]], Answers]
    """From the model's output, under `output`, to what is served."""
    examples: Literal["classify", "regress"] | None = None
    """Which TensorFlow Serving API over `tf.Example`s fits."""
    alone: bool = False
    """Whether the output can be asked for by itself, through a signature of its name: what else the model answers is not computed then."""


def answers(task: str, output: Any, classes: Sequence[str]) -> Answers:
    """What is served for a model's `output` (a tensor, or a dict of them): floats as float32, `label` as text.

    What a dict holds beside what the task is about (reasons for a score, a place in an index) is served under its own name.

    Raises:
        ConfigError: an output `label` is no text, as reviewers, logs and verdicts take it to be.
    """
    row = TASKS[task]
    given = dict(output) if isinstance(output, Mapping) else {row.output: output}
    served = {name: _served(value) for name, value in given.items()}
    found = {**served, **row.answers(served, classes)}
    if "label" in found and found["label"].dtype != tf.string:
        raise ConfigError(
            f"The model's output 'label' is {found['label'].dtype.name}; a label is text. Answer with a tensor of strings in finish()."
        )
    return found


def reasons(said: Any, classes: Sequence[str]) -> Answers:
    """What is served of what a model's own `explain` says (`project_code` has the contract).

    Raises:
        ConfigError: it says something else.
    """
    if not isinstance(said, Mapping) or not {EXPLAINED_BY, ATTRIBUTIONS} <= set(said) <= _WHY:
        raise ConfigError(
            f"The model's explain() must return a dict with {EXPLAINED_BY} and {ATTRIBUTIONS}, and of {EXPLAINED_BY_LABEL} and {BASE} what there is; "
            f"it returned {', '.join(map(str, said)) if isinstance(said, Mapping) else type(said).__name__}. Correct model.py, then `millrace run` again."
        )
    return {name: _named(value, classes) if name == EXPLAINED_BY_LABEL else _served(value) for name, value in said.items()}


def explained_score(task: str, given: Answers, chosen: tf.Tensor | None) -> tf.Tensor:
    """The one number of each answer that an explanation is about [batch]: the score of the class that is `chosen` [batch], or the only one."""
    value = given[TASKS[task].output]
    return value if chosen is None else tf.gather(value, chosen, batch_dims=1)


def chosen_class(task: str, given: Answers) -> tf.Tensor | None:
    """The class with the highest score [batch]; None where there are no classes."""
    return tf.argmax(given["scores"], axis=-1) if TASKS[task].output == "scores" else None


def check_output(task: str, output: Any, *, classes: int, origin: str) -> None:
    """Hold the output of a model that is about to be trained against the task.

    Raises:
        ConfigError: the shape or the kind of value is wrong.
    """
    row = TASKS[task]
    tensor: Any = output.get(row.output) if isinstance(output, Mapping) else output
    shape, dtype = getattr(tensor, "shape", None), getattr(tensor, "dtype", None)
    width = row.width(classes)
    if shape is None or dtype is None or len(shape) != 2 or width not in (None, shape[-1]) or not dtype.is_floating:  # noqa: PLR2004 (rows, columns)
        found = f"a tensor of {dtype.name} {list(shape)}" if shape is not None and dtype is not None else type(output).__name__
        raise ConfigError(
            f"{origin}: the model returns {found} for a batch, but the task {task!r} takes {row.expects}. "
            "Change the last layer in build(), then `millrace run` again."
        )


def _served(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.float32) if value.dtype.is_floating else value


def _classified(output: Mapping[str, tf.Tensor], classes: Sequence[str]) -> Answers:
    scores = output["scores"]
    label = tf.gather(tf.constant(list(classes)), tf.argmax(scores, axis=-1))
    return {"label": label, "confidence": tf.reduce_max(scores, axis=-1), "scores": scores}


def _embedded(output: Mapping[str, tf.Tensor], classes: Sequence[str]) -> Answers:
    given = dict(output)
    label = given.get("label")
    if label is not None:
        given["label"] = _named(label, classes)
    return {name: value if name == "embedding" else tf.reshape(value, [-1]) for name, value in given.items()}


def _named(label: tf.Tensor, classes: Sequence[str]) -> tf.Tensor:
    return tf.gather(tf.constant(list(classes)), label) if label.dtype.is_integer else label


def _column(name: str) -> Callable[[Mapping[str, tf.Tensor], Sequence[str]], Answers]:
    return lambda output, _: {name: tf.reshape(output[name], [-1])}


TASKS: Mapping[str, Task] = {
    "classification": Task(
        output="scores",
        width=lambda classes: classes,
        expects="a probability for each class, floats [batch, classes]",
        answers=_classified,
        examples="classify",
    ),
    "multilabel": Task(
        output="scores",
        width=lambda classes: classes,
        expects="a probability for each class, floats [batch, classes]",
        answers=lambda output, _: {"scores": output["scores"]},
    ),
    "detection": Task(
        output="score", width=lambda _: 1, expects="one score for each row, floats [batch, 1]", answers=_column("score"), examples="regress"
    ),
    "similarity": Task(
        output="embedding",
        width=lambda _: None,
        expects="an embedding for each row, floats [batch, n]",
        answers=_embedded,
        alone=True,  # for callers who keep neighbours of their own
    ),
    "regression": Task(
        output="value", width=lambda _: 1, expects="one value for each row, floats [batch, 1]", answers=_column("value"), examples="regress"
    ),
}
