"""A rival for outlier detectors that learns without labels and without anybody's help: an isolation forest on the raw features.

An isolation forest cuts the rows apart at random values of random features; what is alone after few cuts is unlike the rest (Liu, Ting and
Zhou, "Isolation Forest", 2008; scikit-learn's `IsolationForest` with its defaults). It takes numbers only, so text becomes
counts of its letter n-grams, hashed into a few columns (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009), and a time
becomes hour and weekday. `baselines.py` calls it for the baseline `isolation_forest`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.project import ColumnType

Floats = npt.NDArray[np.float64]

TEXT_COLUMNS = 32
"""Columns that a text feature is hashed into."""
TRAINED_ON = 200_000
"""Training rows at most, drawn at random. Each tree looks at 256 of them."""
_SEED = 17
_AT_ONCE = 50_000


def readable(features: Mapping[str, ColumnType]) -> dict[str, ColumnType]:
    """The features that the forest reads: all but `bytes`, which it could only count."""
    return {name: kind for name, kind in features.items() if kind != "bytes"}


def forest_scores(train: pa.Table, test: pa.Table, features: Mapping[str, ColumnType], *, seed: int = _SEED) -> Floats:
    """How much sooner than others each test row is alone, between 0 and 1 [test rows]; fitted on `train`, at least one row of it.

    The same rows and the same `seed` give the same scores.
    """
    from sklearn.ensemble import IsolationForest  # seconds to import, and most runs need none

    if len(train) > TRAINED_ON:
        train = train.take(np.sort(np.random.default_rng(seed).choice(len(train), TRAINED_ON, replace=False)))
    known = matrix(train, features)
    usual = np.array([np.median(column[~np.isnan(column)]) if (~np.isnan(column)).any() else 0.0 for column in known.T])
    forest = IsolationForest(random_state=seed).fit(_filled(known, usual))
    chunks = [forest.score_samples(_filled(matrix(test.slice(at, _AT_ONCE), features), usual)) for at in range(0, len(test), _AT_ONCE)]
    return -np.concatenate(chunks) if chunks else np.zeros(0)


def matrix(rows: pa.Table, features: Mapping[str, ColumnType]) -> Floats:
    """The features of `rows` as numbers [rows, n], NaN where a number is missing; n depends on `features` alone."""
    return np.concatenate([part for name, kind in features.items() for part in _parts(rows[name], kind)], axis=1)


def _parts(column: pa.ChunkedArray, kind: ColumnType) -> Iterator[Floats]:
    if kind == "timestamp":
        seconds = _numbers(column.cast(pa.int64()))
        yield np.column_stack([seconds // 3600 % 24, (seconds // 86_400 + 3) % 7])  # 1 January 1970 was a Thursday
    elif kind in ("float", "integer"):
        yield _numbers(column)[:, None]
    elif kind == "string":
        yield _hashed(pc.fill_null(column.cast(pa.string()), ""))
    else:
        lengths = _numbers(pc.fill_null(pc.list_value_length(column), 0))
        yield lengths[:, None]
        if kind == "[string]":
            yield _hashed(pc.fill_null(pc.binary_join(column.combine_chunks().cast(pa.list_(pa.string())), " "), ""))
        else:
            yield _means(column.combine_chunks(), len(lengths))[:, None]


def _numbers(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _means(lists: pa.ListArray, rows: int) -> Floats:
    values = np.nan_to_num(_numbers(pc.list_flatten(lists)))
    parents = np.asarray(pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), dtype=np.int64)
    return np.bincount(parents, weights=values, minlength=rows) / np.maximum(1, np.bincount(parents, minlength=rows))


def _hashed(texts: pa.ChunkedArray | pa.Array) -> Floats:
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 3), n_features=TEXT_COLUMNS)
    return np.asarray(vectorizer.transform(texts.to_pylist()).toarray(), dtype=np.float64)


def _filled(values: Floats, usual: Floats) -> Floats:
    """Missing numbers as the usual one, since a missing number is no place to cut at."""
    return np.where(np.isnan(values), usual, values)
