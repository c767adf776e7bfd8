"""Which parts of a picture made the answer: integrated gradients over its pixels, added up in squares.

Story: `model.Served.explain` asks this of the highest score. The picture is compared with a grey one, which is also what lies beside a picture that is not
square: such parts make nothing. The squares' parts and the score of the grey picture add up to the score.
(Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from mlpipelines.training.explanations import BASE, Tensors, integrated_gradients, ranked

ACROSS = 8
"""Squares in a row, and rows of them."""
POINTS = 32
"""On the way from grey to the picture."""


def explained(scores: Callable[[tf.Tensor], tf.Tensor], pixels: tf.Tensor) -> Tensors:
    """What each square makes of the highest score, the largest first: `explained_by`, `attributions` [batch, squares] and `base_score` [batch].

    Args:
        scores: of pixels [n, side, side, 3], for each class [n, classes]; differentiable.
        pixels: [batch, side, side, 3], 0 is grey.
    """
    chosen = tf.argmax(scores(pixels), axis=-1)
    edges = np.linspace(0, pixels.shape[1], min(ACROSS, pixels.shape[1]) + 1).round().astype(int)
    squares = {
        _name(edges, row, column): pixels[:, edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
        for row in range(len(edges) - 1)
        for column in range(len(edges) - 1)
    }

    def score(parts: Tensors) -> tf.Tensor:
        every, across = list(parts.values()), len(edges) - 1
        rows = [tf.concat(every[start : start + across], axis=2) for start in range(0, len(every), across)]
        return tf.gather(scores(tf.concat(rows, axis=1)), chosen, batch_dims=1)

    grey = {name: tf.zeros_like(square) for name, square in squares.items()}
    return {**ranked(list(squares), integrated_gradients(score, squares, grey, POINTS)), BASE: score(grey)}


def _name(edges: np.ndarray, row: int, column: int) -> str:
    """Where a square lies, in hundredths of the picture's longer side from its upper left corner."""
    left, right, top, bottom = (round(100 * float(edges[at] / edges[-1])) for at in (column, column + 1, row, row + 1))
    return f"x {left}-{right} y {top}-{bottom}"
