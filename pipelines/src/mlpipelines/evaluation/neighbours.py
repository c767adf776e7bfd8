"""How well an embedding brings together what belongs together, row by row: the raw material of the similarity metrics.

Every row of the test set asks for its nearest neighbours among the other rows (leave one out, cosine); neighbours with the
same label are right. Pure numpy, in chunks, so that memory stays flat. The story goes on in `answers.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 5
_CELLS = 16_000_000
_BLOCK = 64

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


def judge_neighbours(embedding: npt.NDArray[Any], labels: Ids) -> dict[str, Floats]:
    """What each row adds to `recall_at_1`, `recall_at_5` and `knn_accuracy`.

    Args:
        embedding: [rows, n]; it is brought to unit length here.
        labels: class ids [rows].

    Returns:
        Three arrays [rows] of 0 and 1; recall is NaN for a row whose label no other row has.
    """
    unit = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-12)
    unit = unit.astype(np.float32)
    nearest, closeness = _nearest(unit, min(NEIGHBOURS, len(unit) - 1))
    same = labels[nearest] == labels[:, None]
    voted = _vote(labels[nearest], closeness)
    paired = np.bincount(labels - labels.min())[labels - labels.min()] > 1
    return {
        "recall_at_1": np.where(paired, same[:, :1].any(axis=1), np.nan),
        "recall_at_5": np.where(paired, same.any(axis=1), np.nan),
        "knn_accuracy": (voted == labels).astype(np.float64),
    }


def chance_of_neighbours(labels: Ids) -> dict[str, Floats]:
    """The same of an embedding that knows nothing: neighbours drawn at random, and the most frequent label as the vote."""
    ids = labels - labels.min()
    counts = np.bincount(ids)
    others, alike = len(ids) - 1, counts[ids] - 1
    missed = np.ones(len(ids))
    recalls = []
    for draw in range(min(NEIGHBOURS, others)):
        missed = missed * np.clip((others - alike - draw) / (others - draw), 0, 1)
        recalls.append(np.where(alike > 0, 1 - missed, np.nan))
    return {"recall_at_1": recalls[0], "recall_at_5": recalls[-1], "knn_accuracy": (ids == counts.argmax()).astype(np.float64)}


def _nearest(unit: npt.NDArray[np.float32], count: int) -> tuple[Ids, npt.NDArray[np.float32]]:
    """The nearest `count` other rows of each row, nearest first, and their cosines.

    The other rows are looked at in blocks. The nearest of all lie in the `count` blocks with the nearest rows, so only these are searched:
    each block outside them is beaten by one row of every block inside.
    """
    rows = len(unit)
    blocks = -(-rows // _BLOCK)
    padded = np.zeros((blocks * _BLOCK, unit.shape[1]), dtype=np.float32)
    padded[:rows] = unit
    places = np.empty((rows, count), dtype=np.int64)
    cosines = np.empty((rows, count), dtype=np.float32)
    step = max(1, _CELLS // rows)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        near = unit[start:stop] @ padded.T
        near[:, rows:] = -np.inf
        near[np.arange(stop - start), np.arange(start, stop)] = -np.inf
        in_blocks = near.reshape(stop - start, blocks, _BLOCK)
        searched = _largest(in_blocks.max(axis=2), min(count, blocks))
        found = np.take_along_axis(in_blocks, searched[:, :, None], axis=1).reshape(stop - start, -1)
        place = (searched[:, :, None] * _BLOCK + np.arange(_BLOCK)).reshape(stop - start, -1)
        best = _largest(found, count)
        order = np.argsort(-np.take_along_axis(found, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        places[start:stop] = np.take_along_axis(place, best, axis=1)
        cosines[start:stop] = np.take_along_axis(found, best, axis=1)
    return places, cosines


def _largest(values: npt.NDArray[np.float32], count: int) -> Ids:
    """The places of each row's `count` largest values, in no order."""
    return np.argpartition(values, values.shape[1] - count, axis=1)[:, values.shape[1] - count :]


def _vote(labels: Ids, closeness: npt.NDArray[np.float32]) -> Ids:
    """The label with the largest sum of cosines among each row's neighbours; the nearer one wins a tie."""
    support = ((labels[:, :, None] == labels[:, None, :]) * closeness[:, None, :]).sum(axis=2)
    return np.take_along_axis(labels, support.argmax(axis=1)[:, None], axis=1)[:, 0]
