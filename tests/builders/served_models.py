"""A small SavedModel for clusters: it says which version it is, and brings golden requests along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlserving import store
from mlserving.store import GOLDEN_REQUESTS

FIRST_ROWS = (0.0, 1.5, -3.0)


def save(folder: Path, version: int, *, above: float = 0.0) -> Path:
    """`amount` in; `label` (`in` where the amount lies `above`), `confidence`, `doubled` and `version` out. Returns the folder."""
    import tensorflow as tf

    class Doubling(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        def __init__(self) -> None:
            super().__init__()
            self.number = tf.Variable(version, dtype=tf.int64)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="amount")])  # type: ignore[untyped-decorator]
        def predict(self, amount: Any) -> Any:
            return {
                "label": tf.where(amount > above, "in", "out"),
                "confidence": tf.nn.sigmoid(tf.abs(amount)),
                "doubled": amount * 2,
                "version": tf.fill(tf.shape(amount), self.number),
            }

    model = Doubling()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.predict})
    rows = [
        {"inputs": {"amount": amount}, "outputs": {"doubled": amount * 2, "label": "in" if amount > above else "out", "version": version}}
        for amount in FIRST_ROWS
    ]
    (folder / GOLDEN_REQUESTS).parent.mkdir()
    (folder / GOLDEN_REQUESTS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def publish(models: Path, name: str, version: int, folder: Path, *, above: float = 0.0) -> str:
    """Into a store that pods read under an account of their own, unless it is there. Returns its digest."""
    if not (models / name / str(version)).exists():
        store.publish_version(models, name, version, save(folder, version, above=above))
    for path in [models, *models.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return store.digest(models / name / str(version))
