"""From the bytes of an image file to pixels, the same in the input pipeline, in training and in the served graph.

Story: `decoded` turns files of any size into squares of one size, with nothing cut off: what lies at the edge of a photo counts as well.
What is no image file at all (nothing, or a text) becomes a grey square, and is said to be unreadable; `model.Served` answers it
with zeros. A file that begins like an image and does not decode makes the whole batch fail: TensorFlow has no decoder that forgives.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")
"""Of JPEG, PNG, GIF and BMP files: what `tf.io.decode_image` reads. Of a GIF, the first picture counts."""
_JPEG = BEGINNINGS[0]
_GREY = 127.5
_PARTS = (1, 2, 4, 8)
"""A JPEG can be decoded at a half, a quarter or an eighth of its size, for about as much less work."""


def readable(files: tf.Tensor) -> tf.Tensor:
    """[batch] booleans: whether bytes [batch] begin like an image file."""
    looks = [tf.equal(tf.strings.substr(files, 0, len(begin)), tf.constant(begin)) for begin in BEGINNINGS]
    return tf.reduce_any(tf.stack(looks), axis=0)


def decoded(files: tf.Tensor, size: int) -> tf.Tensor:
    """Bytes [batch] → float32 [batch, size, size, 3] from -1 to 1: made smaller or larger until they fit, and grey beside.

    Raises:
        tf.errors.InvalidArgumentError: (while the graph runs) a file begins like an image and does not decode.
    """

    def one(item: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        file, looks = item
        pixels = tf.cond(looks, lambda: _pixels(file, size), lambda: tf.fill([1, 1, 3], _GREY))
        return _fitted(tf.ensure_shape(pixels, [None, None, 3]) / _GREY - 1.0, size)

    return tf.map_fn(one, (files, readable(files)), fn_output_signature=tf.TensorSpec([size, size, 3], tf.float32))


def _pixels(file: tf.Tensor, size: int) -> tf.Tensor:
    """Float32 [height, width, 3] from 0 to 255; of a JPEG that is much larger than `size`, a smaller edition."""
    is_jpeg = tf.equal(tf.strings.substr(file, 0, len(_JPEG)), tf.constant(_JPEG))
    every = lambda: tf.io.decode_image(file, channels=3, expand_animations=False)  # noqa: E731 – a branch
    return tf.cast(tf.cond(is_jpeg, lambda: _jpeg(file, size), every), tf.float32)


def _jpeg(file: tf.Tensor, size: int) -> tf.Tensor:
    """The smallest edition whose longer side is not shorter than `size`."""
    longer = tf.reduce_max(tf.io.extract_jpeg_shape(file)[:2])
    place = tf.reduce_sum([tf.cast(longer >= part * size, tf.int32) for part in _PARTS[1:]])
    return tf.switch_case(place, [lambda part=part: tf.io.decode_jpeg(file, channels=3, ratio=part) for part in _PARTS])


def _fitted(pixels: tf.Tensor, size: int) -> tf.Tensor:
    fits = tf.reduce_all(tf.equal(tf.shape(pixels)[:2], size))
    return tf.ensure_shape(
        tf.cond(fits, lambda: pixels, lambda: tf.image.resize_with_pad(pixels, size, size, antialias=True)), [size, size, 3]
    )


@keras.saving.register_keras_serializable("image_content")
class Decoded(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """`decoded` as a layer: bytes [batch] → pixels [batch, size, size, 3]."""

    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.size = size
        self.supports_jit = False  # XLA has no strings

    def call(self, files: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return decoded(files, self.size)

    def compute_output_spec(self, files: Any) -> Any:
        """Stated, since Keras would have to trace strings to find it out."""
        return keras.KerasTensor((files.shape[0], self.size, self.size, 3), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "size": self.size}
