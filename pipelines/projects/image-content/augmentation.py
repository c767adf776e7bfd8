"""What may happen to a training image without changing what is on it: another crop, mirrored, in another light, partly covered.

Story: `model.batches` draws new changes for every image each time it comes by. All of it works on a whole batch at once, and all
chance comes from a seed that is handed in, so that the same seed trains on the same pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How much may change."""

    crop: float = 0.7
    """The smallest part of the area that is kept; 1: all of it."""
    shift: float = 0.1
    """How far the crop may lie beyond the image, as a part of its side."""
    flip: bool = True
    """Half of the images are mirrored. Not where left and right matter, as they do for lettering that is to be read."""
    colour: float = 0.2
    """How far brightness, contrast and saturation move."""
    erase: float = 0.0
    """The longest side of a grey square laid on the image, as a part of its side (DeVries and Taylor, "Cutout", 2017)."""


def changed(pixels: tf.Tensor, changes: Changes, seed: tf.Tensor) -> tf.Tensor:
    """Pixels [batch, side, side, 3] from -1 to 1, changed; `seed` is two integers [2]."""
    seeds = tf.unstack(tf.random.split(seed, 3))
    pixels = _cropped(pixels, changes, seeds[0])
    if changes.colour:
        pixels = _coloured(pixels, changes.colour, seeds[1])
    return _erased(pixels, changes.erase, seeds[2]) if changes.erase else pixels


def _cropped(pixels: tf.Tensor, changes: Changes, seed: tf.Tensor) -> tf.Tensor:
    """Crop, shift and mirror in one go: a box for each image, right and left exchanged where it is mirrored."""
    rows, side = tf.shape(pixels)[0], pixels.shape[1]
    smallest = changes.crop**0.5
    drawn = tf.random.stateless_uniform([4, rows], seed)
    length = smallest + (1.0 - smallest) * drawn[0]
    free = (1.0 - length) / 2.0 + changes.shift
    top = (1.0 - length) / 2.0 + free * (2.0 * drawn[1] - 1.0)
    left = (1.0 - length) / 2.0 + free * (2.0 * drawn[2] - 1.0)
    mirrored = (drawn[3] < 0.5) & changes.flip
    near, far = tf.where(mirrored, left + length, left), tf.where(mirrored, left, left + length)
    boxes = tf.stack([top, near, top + length, far], axis=1)
    return tf.image.crop_and_resize(pixels, boxes, tf.range(rows), [side, side], extrapolation_value=0.0)


def _coloured(pixels: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Saturation and contrast as one matrix for each image, brightness added: one pass over the pixels."""
    drawn = strength * (2.0 * tf.random.stateless_uniform([3, tf.shape(pixels)[0], 1, 1], seed) - 1.0)
    saturation, contrast = 1.0 + drawn[0], 1.0 + drawn[1]
    mixing = (saturation * tf.eye(3) + (1.0 - saturation) / 3.0) * contrast
    flat = tf.reshape(pixels, [tf.shape(pixels)[0], -1, 3])
    return tf.reshape(tf.clip_by_value(tf.matmul(flat, mixing) + drawn[2], -1.0, 1.0), tf.shape(pixels))


def _erased(pixels: tf.Tensor, longest: float, seed: tf.Tensor) -> tf.Tensor:
    drawn = tf.random.stateless_uniform([3, tf.shape(pixels)[0], 1], seed)
    half = longest * drawn[0] / 2.0
    places = (tf.range(pixels.shape[1], dtype=tf.float32) + 0.5)[tf.newaxis, :] / pixels.shape[1]
    rows, columns = tf.abs(places - drawn[1]) < half, tf.abs(places - drawn[2]) < half
    covered = rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]
    return pixels * (1.0 - tf.cast(covered, pixels.dtype))[..., tf.newaxis]
