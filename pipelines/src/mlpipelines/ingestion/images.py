"""Whether the images among the rows are images: each is decoded once before anything is drawn from the rows.

A graph decodes a whole batch or fails as a whole, so one broken file among a million would end a training hours later, and one
in the sealed test set would end every evaluation from then on. Here it costs its own row only. The judge is the decoder that a
model's graph uses, TensorFlow's, so that what passes here passes there; it is imported only where a project names images.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from mlpipelines.artifacts import KEY
from mlpipelines.errors import DataRejected
from mlpipelines.ingestion.splits import Mask

MOST_BROKEN = 0.01
"""A larger share of rows with a broken image is an accident at the source, not noise."""
_SHOWN = 3
_ROWS_AT_ONCE = 256


def broken_images(values: pa.ChunkedArray) -> Mask:
    """Rows whose value is no JPEG, PNG, GIF or BMP, or does not decode. A missing value is not broken: the schema judges it."""
    values = values.combine_chunks()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = [values.slice(start, _ROWS_AT_ONCE) for start in range(0, len(values), _ROWS_AT_ONCE)]
        found = [mask for part in pool.map(_broken, parts) for mask in part]
    return np.array(found, dtype=np.bool_)


def _broken(values: pa.Array) -> list[bool]:
    import tensorflow as tf

    def fails(value: bytes) -> bool:
        try:
            tf.io.decode_image(value, channels=3, expand_animations=False)
        except tf.errors.OpError:
            return True
        return False

    return [value is not None and fails(value) for value in values.to_pylist()]


def without_broken(rows: pa.Table, columns: Sequence[str]) -> tuple[pa.Table, list[str]]:
    """The rows all of whose images decode, and a text for each column that had others.

    Raises:
        DataRejected: more than `MOST_BROKEN` of a column's images are broken; the report names the first ones by their keys.
    """
    told = []
    for column in columns:
        broken = broken_images(rows[column])
        if not broken.any():
            continue
        keys = rows[KEY].filter(pa.array(broken)).slice(0, _SHOWN).to_pylist()
        _require_few(broken, column, rows, keys)
        more = ", …" if broken.sum() > _SHOWN else ""
        told.append(
            f"column {column!r}: {broken.sum():,} rows hold no image that decodes and are left out ({KEY} {', '.join(map(str, keys))}{more})"
        )
        rows = rows.filter(pa.array(~broken))
    return rows, told


def _require_few(broken: Mask, column: str, rows: pa.Table, keys: Sequence[str]) -> None:
    count, share = int(broken.sum()), float(broken.mean())
    if share <= MOST_BROKEN:
        return
    images = rows[column].filter(pa.array(broken)).slice(0, _SHOWN).to_pylist()
    raise DataRejected(
        f"{count:,} of {len(broken):,} values of the column {column!r} are no images that decode ({share:.1%}), for example in the rows "
        f"{', '.join(map(repr, keys))}; at most {MOST_BROKEN:.0%} are left out without asking. JPEG, PNG, GIF and BMP are read. "
        "Correct the source, or take the column out of source.images in project.yaml.",
        report=[
            {"column": column, "rule": "an image that decodes", "share": share, "row": key, "example": f"{len(image):,} bytes"}
            for key, image in zip(keys, images, strict=True)
        ],
    )
