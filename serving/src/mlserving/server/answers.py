"""Predict, classify, regress: what TensorFlow Serving's calls mean for a signature, whichever protocol they came by.

Classify and regress take serialised `tf.Example`s. As in TensorFlow Serving, any signature may answer them that has one
input called `inputs` and gives `classes` and/or `scores`, or `outputs`; its `method_name` is not looked at, because TensorFlow
2 cannot set one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mlserving.client.signature import Signature
from mlserving.server.answer_errors import RequestError, invalid
from mlserving.server.arrays import Array, short_floats
from mlserving.server.servable import Servable

EXAMPLES = "inputs"
CLASSES = "classes"
SCORES = "scores"
REGRESSIONS = "outputs"
_MATRIX = 2


def predict(servable: Servable, signature: str, feeds: Mapping[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
    """Run the signature over a batch. Raises RequestError as `Servable.run` does."""
    return servable.run(servable.signature(signature), feeds, outputs)


def classify(servable: Servable, signature: str, examples: Sequence[bytes]) -> list[list[tuple[str, float]]]:
    """For each example, its classes with their scores, in the model's order. A missing class is "", a missing score 0.

    Raises:
        RequestError: the signature cannot classify, an example does not parse, or there is none.
    """
    called = _example_signature(servable, signature, {CLASSES, SCORES}, "classify")
    fetches = [name for name in (CLASSES, SCORES) if name in called.outputs]
    results = servable.run(called, _feed(examples), fetches)
    for name, array in results.items():
        if array.ndim != _MATRIX or len(array) != len(examples):
            raise invalid(f"Signature {called.name} gave {name} of shape {list(array.shape)}; expected [{len(examples)}, classes].")
    shape = next(iter(results.values())).shape
    classes = results[CLASSES] if CLASSES in results else np.full(shape, b"", object)
    scores = results[SCORES] if SCORES in results else np.zeros(shape, np.float32)
    if classes.shape != scores.shape:
        raise invalid(f"Signature {called.name} gave classes {list(classes.shape)} and scores {list(scores.shape)}.")
    return [
        [(label.decode(errors="replace"), score) for label, score in zip(*row, strict=True)]
        for row in zip(classes.tolist(), short_floats(scores), strict=True)
    ]


def regress(servable: Servable, signature: str, examples: Sequence[bytes]) -> list[float]:
    """One value for each example. Raises RequestError as `classify` does."""
    called = _example_signature(servable, signature, {REGRESSIONS}, "regress")
    values = servable.run(called, _feed(examples), [REGRESSIONS])[REGRESSIONS]
    if values.size != len(examples) or values.ndim > _MATRIX:
        raise invalid(f"Signature {called.name} gave outputs of shape {list(values.shape)}; expected [{len(examples)}].")
    result: list[float] = short_floats(values.ravel())
    return result


def _example_signature(servable: Servable, name: str, outputs: set[str], verb: str) -> Signature:
    called = servable.signature(name)
    if _takes_examples(called) and outputs & set(called.outputs):
        return called
    fitting = [other.name for other in servable.signatures.values() if _takes_examples(other) and outputs & set(other.outputs)]
    advice = f"Name one that can: signature_name {', '.join(sorted(fitting))}." if fitting else f"No signature of {servable.model} can."
    raise invalid(
        f"Signature {called.name} cannot {verb}: that takes one string input '{EXAMPLES}' and output {' or '.join(sorted(outputs))}. {advice}"
    )


def _takes_examples(signature: Signature) -> bool:
    return signature.inputs.keys() == {EXAMPLES} and signature.inputs[EXAMPLES].dtype == "DT_STRING"


def _feed(examples: Sequence[bytes]) -> dict[str, Array]:
    if not examples:
        raise RequestError("INVALID_ARGUMENT", "Input is empty: send at least one example.")
    array = np.empty(len(examples), object)
    array[:] = examples
    return {EXAMPLES: array}
