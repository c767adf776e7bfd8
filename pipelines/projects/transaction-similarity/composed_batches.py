"""Batches in which every row has partners: P classes with K rows each, out of rows that come shuffled.

Story: losses over pairs learn nothing from a row whose class nobody else in the batch has, and in shuffled rows that is every row of a rare
class. `composed` looks at the rows of several batches together and deals them out anew: first into groups of K rows of one class, then
groups into batches. Every row still comes once an epoch, so classes keep their weight; and what was drawn follows from the order of the rows
alone, so a training that goes on after a kill needs no memory of it.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

Batch = tuple[Any, ...]
"""(features, label[, weight]) as `project_code` has it."""


def composed(dataset: tf.data.Dataset, *, rows_of_a_class: int, together: int) -> tf.data.Dataset:
    """`dataset`'s batches, with the rows of each `together` of them dealt out anew. The number of batches stays, and so does their size."""

    def dealt(*window: Any) -> tf.data.Dataset:
        joined = tf.nest.map_structure(lambda values: tf.concat(tf.unstack(values, together), axis=0), window)
        order = places(joined[1], rows_of_a_class)
        size = tf.shape(window[1])[1]

        def cut(values: tf.Tensor) -> tf.Tensor:
            return tf.reshape(tf.gather(values, order), tf.concat([[together, size], tf.shape(values)[1:]], axis=0))

        return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(cut, joined))

    return dataset.batch(together, drop_remainder=True).flat_map(dealt)


def places(labels: tf.Tensor, rows_of_a_class: int) -> tf.Tensor:
    """The order [rows] that puts rows of a class next to each other in groups of `rows_of_a_class`.

    Groups come in the order in which their first rows came; what a class has left over makes a last, smaller group.
    """
    labels = tf.reshape(tf.cast(labels, tf.int64), [-1])
    rows = tf.size(labels, tf.int64)
    by_class = tf.argsort(labels, stable=True)
    sorted_labels = tf.gather(labels, by_class)
    begins = tf.searchsorted(sorted_labels, sorted_labels, side="left")
    rank = tf.range(tf.size(labels)) - begins  # the row's number among its class
    group_start = tf.range(tf.size(labels)) - rank % rows_of_a_class
    first_of_group = tf.cast(tf.gather(by_class, group_start), tf.int64)
    key = first_of_group * rows + tf.cast(tf.range(tf.size(labels)), tf.int64)
    return tf.gather(by_class, tf.argsort(key, stable=True))
