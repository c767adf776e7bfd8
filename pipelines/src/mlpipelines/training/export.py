"""The trained model as a SavedModel over raw features, with the transform in its graph: what TensorFlow Serving loads.

Signatures: `serving_default` takes each declared feature by its name ([batch]; lists [batch, n], padded) and answers as
`tasks` says; `explain`, where the project wants it (`explanations`) or the model has a method of that name, takes and answers the same and says why; where it fits, `classify` or
`regress` take serialized `tf.Example`s; of similarity, `embedding` answers with that alone. `bytes` features keep their name:
TensorFlow Serving's REST API decodes `{"b64": …}` in any string input, and wants names with `_bytes` only for outputs.

The transform's graph is loaded as the SavedModel that TensorFlow Transform wrote, without TensorFlow Transform: its Keras
layer is a legacy one, which would drag Keras 2 into the export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from mlpipelines.artifacts import Transformed
from mlpipelines.errors import ConfigError
from mlpipelines.project import Project
from mlpipelines.training import explanations
from mlpipelines.training.tasks import TASKS, Answers, answers, chosen_class, explained_score, reasons
from mlpipelines.transformation import raw_features
from mlpipelines.workspace import create_folder
from mlserving.client.ask import DEFAULT_SIGNATURE, EXPLAIN_SIGNATURE
from mlserving.workspace import write_whole

CLASSES = "classes.txt"
_METHODS = {"classify": "tensorflow/serving/classify", "regress": "tensorflow/serving/regress"}


class ServingGraph(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """Transform, model and the meaning of its outputs as one graph."""

    def __init__(
        self,
        model: keras.Model,
        *,
        project: Project,
        transformed: Transformed,
        classes: Sequence[str],
        compared: explanations.Row | None = None,
    ) -> None:
        super().__init__()
        # Not the model as an attribute: tf.saved_model.save writes no restoration for a Keras 3 model's variables
        # (keras-team/keras#20095), and TensorFlow Serving would answer that they do not exist.
        self.weights = [variable.value for variable in model.variables]
        self.resources = _resources_of(model)
        self._call: Callable[[Any], Any] = lambda features: model(features, training=False)
        self.transform = tf.saved_model.load(str(transformed.transform_output / "transform_fn"))
        self._project = project
        self._class_names = tuple(classes)
        self.own_explain: Callable[[Any], Any] | None = getattr(model, "explain", None)
        self._compared = {name: explanations.as_tensor(project.features[name], value) for name, value in (compared or {}).items()}

    def predict(self, inputs: Mapping[str, tf.Tensor]) -> Answers:
        """Raw features as a request has them → answers."""
        return self._answers(raw_features.from_request(self._project, inputs))

    def explain(self, inputs: Mapping[str, tf.Tensor]) -> Answers:
        """What `predict` answers, and how much of the score each feature makes (see `explanations`).

        Raises:
            ConfigError: the model cannot be explained in the way that project.yaml names.
        """
        wanted = self._project.deployment.explanations
        assert wanted is not None
        given = self.predict(inputs)
        explanations.require_free_names(given)
        chosen = chosen_class(self._project.task, given)
        asked = {name: inputs[name] for name in self._project.features}
        if wanted.method == "shapley":
            compared, score = self._compared, self._score(self.predict, chosen)
            made = explanations.shapley(score, asked, compared, explanations.orders_of(len(asked), wanted.samples))
        else:
            asked, compared = self._transformed(asked), self._transformed(self._compared)
            explanations.require_floats(asked)
            score = self._score(lambda features: answers(self._project.task, self._call(features), self._class_names), chosen)
            made = explanations.integrated_gradients(score, asked, compared, wanted.samples)
        base = score({name: tf.repeat(compared[name], tf.shape(value)[0], axis=0) for name, value in asked.items()})
        return {**given, **explanations.ranked(list(asked), made), explanations.BASE: base}

    def own_reasons(self, inputs: Mapping[str, tf.Tensor]) -> Answers:
        """What `predict` answers, and what a model that explains itself says beside.

        Raises:
            ConfigError: its `explain` says something else.
        """
        assert self.own_explain is not None
        features = self._transformed(inputs)
        given = answers(self._project.task, self._call(features), self._class_names)
        return {**given, **reasons(self.own_explain(features), self._class_names)}

    def classify(self, examples: tf.Tensor) -> Answers:
        """Serialized `tf.Example`s [batch] → `classes` and `scores`, both [batch, classes]."""
        scores = self._answers(tf.io.parse_example(examples, _example_spec(self._project)))["scores"]
        names = tf.constant(list(self._class_names))[tf.newaxis, :]
        return {"classes": tf.tile(names, [tf.shape(scores)[0], 1]), "scores": scores}

    def regress(self, examples: tf.Tensor) -> Answers:
        """Serialized `tf.Example`s [batch] → `outputs` [batch]."""
        raw = tf.io.parse_example(examples, _example_spec(self._project))
        return {"outputs": self._answers(raw)[TASKS[self._project.task].output]}

    def _answers(self, raw: Mapping[str, Any]) -> Answers:
        features = self.transform.transform_fn(dict(raw))
        return answers(self._project.task, self._call(features), self._class_names)

    def _transformed(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return dict(self.transform.transform_fn(raw_features.from_request(self._project, inputs)))

    def _score(self, ask: Callable[[Any], Answers], chosen: tf.Tensor | None) -> explanations.Score:
        """The score that is explained, of copies of the batch; each copy's class is the one that was `chosen` for the batch."""

        def score(rows: explanations.Tensors) -> tf.Tensor:
            given = ask(rows)
            if chosen is None:
                return explained_score(self._project.task, given, None)
            copies = tf.shape(given["scores"])[0] // tf.shape(chosen)[0]
            return explained_score(self._project.task, given, tf.tile(chosen, [copies]))

        return score


def _resources_of(model: keras.Model) -> list[Any]:
    """The lookup tables and the like that the model's layers hold, which the graph needs initialised."""
    held = (value for layer in model._flatten_layers() for value in vars(layer).values())  # noqa: SLF001  # Keras has no public walk
    return [value for value in held if isinstance(value, tf.saved_model.experimental.TrackableResource)]


def answers_in_memory(model: keras.Model, features: Any, *, task: str, classes: Sequence[str]) -> dict[str, Any]:
    """What the model in memory answers for transformed `features`, as arrays."""
    return {name: value.numpy() for name, value in answers(task, model(features, training=False), classes).items()}


def export_model(
    model: keras.Model,
    *,
    project: Project,
    transformed: Transformed,
    classes: Sequence[str],
    folder: Path,
    compared: explanations.Row | None = None,
) -> None:
    """Write the SavedModel to `folder`, whole or not at all. `compared` is the row that explanations compare with, where the project wants them.

    Raises:
        ConfigError: the model cannot be explained in the way that project.yaml names.
        Conflict: `folder` is there already.
    """
    module = ServingGraph(model, project=project, transformed=transformed, classes=classes, compared=compared)
    create_folder(folder, lambda fresh: _write(module, project, classes, fresh))


def _write(module: ServingGraph, project: Project, classes: Sequence[str], folder: Path) -> None:
    if classes:
        listing = folder / CLASSES
        listing.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
        module.class_list = tf.saved_model.Asset(str(listing))
    tf.saved_model.save(module, str(folder), signatures=_signatures(module, project))
    (folder / CLASSES).unlink(missing_ok=True)  # its copy is in assets/
    _name_methods(folder / "saved_model.pb")


def _signatures(module: ServingGraph, project: Project) -> dict[str, Any]:
    specs = raw_features.serving_signature(project)
    signatures = {DEFAULT_SIGNATURE: tf.function(module.predict).get_concrete_function(specs)}
    wanted, own = project.deployment.explanations is not None, module.own_explain is not None
    if wanted and own:
        raise ConfigError(
            "The model has an explain() of its own. Leave deployment.explanations out of project.yaml, then `millrace run` again."
        )
    if wanted or own:
        signatures[EXPLAIN_SIGNATURE] = tf.function(module.own_reasons if own else module.explain).get_concrete_function(specs)
    examples, output = TASKS[project.task].examples, TASKS[project.task].output
    if TASKS[project.task].alone:
        signatures[output] = tf.function(lambda inputs: {output: module.predict(inputs)[output]}).get_concrete_function(specs)
    if examples is not None:
        spec = tf.TensorSpec([None], tf.string, name="inputs")
        signatures[examples] = tf.function(getattr(module, examples)).get_concrete_function(spec)
    return signatures


def _example_spec(project: Project) -> dict[str, Any]:
    """How `tf.Example`s are read: a string or float that is not there is a missing value, an integer must be there."""
    missing = {"string": b"", "float32": float("nan")}
    spec: dict[str, Any] = raw_features.raw_feature_spec(project)
    for name, kind in project.features.items():
        dtype = raw_features.tensorflow_dtype(kind)
        if not raw_features.is_list(kind) and dtype in missing:
            spec[name] = tf.io.FixedLenFeature([], dtype, default_value=missing[dtype])
    return spec


def _name_methods(file: Path) -> None:
    """Say which signatures are for Classify and Regress: TensorFlow 2 writes every one as a Predict signature, and TensorFlow
    Serving refuses those for its other APIs.
    """
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        for name, method in _METHODS.items():
            if name in graph.signature_def:
                graph.signature_def[name].method_name = method
    write_whole(file, saved.SerializeToString())
