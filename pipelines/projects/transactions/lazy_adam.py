"""Adam that leaves the rows of a table alone that a batch did not touch.

Story: `model.py` has a dozen million weights in tables, of which a batch of 512 rows touches a few in a hundred. Keras' Adam moves
all of them at every step, and that is most of a step's time on a CPU. This one updates the touched rows only, as
`tensorflow_addons.optimizers.LazyAdam` once did; all other weights are left to Keras.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("transactions")
class LazyAdam(keras.optimizers.Adam):  # type: ignore[misc]  # Keras ships no types
    """Adam (Kingma and Ba, 2015) whose moments of a table's row age only when the row is used."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update `variable`: all of it for a dense gradient, the named rows for a `tf.IndexedSlices`."""
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        rows, place = tf.unique(gradient.indices)
        total = tf.math.unsorted_segment_sum(gradient.values, place, tf.size(rows))
        index = self._get_variable_index(variable)
        first, second = self._momentums[index].value, self._velocities[index].value
        momentum = self.beta_1 * tf.gather(first, rows) + (1.0 - self.beta_1) * total
        velocity = self.beta_2 * tf.gather(second, rows) + (1.0 - self.beta_2) * tf.square(total)
        step = tf.cast(self.iterations + 1, total.dtype)
        rate = tf.cast(learning_rate, total.dtype) * tf.sqrt(1.0 - self.beta_2**step) / (1.0 - self.beta_1**step)
        self.assign(first, tf.IndexedSlices(momentum, rows))
        self.assign(second, tf.IndexedSlices(velocity, rows))
        self.assign_sub(variable, tf.IndexedSlices(rate * momentum / (tf.sqrt(velocity) + self.epsilon), rows))
