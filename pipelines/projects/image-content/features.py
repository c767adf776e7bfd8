"""An image goes through as the bytes of its file.

Story: decoded, a photo is a hundred times its file; written out as numbers, the transformed rows would outgrow every disk they lie on.
So `transform` keeps the bytes, and they are decoded where they are looked at: in the input pipeline while training (`model.batches`),
and inside the served graph afterwards (`image_layers.Decoded`).
"""

from __future__ import annotations

import tensorflow as tf


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """See `mlpipelines.project_code` for the contract. `image`: the file's bytes [batch]; empty where there is none."""
    return {"image": tf.identity(inputs["image"])}
