"""What an outlier detector is judged by where nobody has labelled anything: rows that cannot be real, among the sealed ones.

A planted row is a copy of a sealed row in which every feature comes from another sealed row, drawn for each feature by itself: each
value is one that occurs, and together they belong to no row. A detector that has learned how columns hang together scores such
rows higher; one that has learned nothing finds as many of them as chance does. Real outliers among the sealed rows count as
ordinary here, so a perfect score is neither possible nor wanted: compare models, and label rows when you can.

The construction is that of Breiman and Cutler's unsupervised random forests ("Random Forests", 2003) and, for judging detectors, of
Hempstalk, Frank and Witten, "One-Class Classification by Combining Density and Class Estimation", 2008.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mlpipelines.artifacts import KEY
from mlpipelines.project import Label, Project

SHARE = 0.05
"""Planted rows, as a share of the sealed ones; at least one."""
PLANTED = Label(column="__planted", kind="flag", use="evaluation")
"""The label that planting makes."""
_SEED = 17


def with_planted(rows: pa.Table, project: Project) -> pa.Table:
    """`rows` (sealed, at least one) and the planted ones after them, with the column `PLANTED.column`, 1 for planted.

    The same rows give the same planted ones, so that champion and challenger of every run are asked about them. What is no
    feature, such as a column that only slices are cut by, stays as in the row that was copied.
    """
    random = np.random.default_rng(_SEED)
    count = max(1, round(SHARE * len(rows)))
    planted = rows.take(random.choice(len(rows), size=count, replace=False))
    for name in sorted(set(project.features) & set(rows.column_names)):
        column = rows[name].take(pa.array(random.integers(len(rows), size=count)))
        planted = planted.set_column(planted.column_names.index(name), rows.schema.field(name), column)
    if KEY in rows.column_names:
        keys = pa.chunked_array([[f"{key}/planted" for key in planted[KEY].to_pylist()]], rows.schema.field(KEY).type)
        planted = planted.set_column(planted.column_names.index(KEY), rows.schema.field(KEY), keys)
    flags = pa.array([0] * len(rows) + [1] * count, pa.int8())
    return pa.concat_tables([rows, planted]).append_column(PLANTED.column, flags)
