"""Where rows come from: one module for each kind of source, all with the same three methods.

Every adapter yields Arrow record batches with the source's own column names, only the columns that were asked for, and
pushes the time window down as far as the source can filter. It never judges values: `mlpipelines.ingestion.canonical` does. Steps
import `open_source` from here and know no kind by name.
"""

from __future__ import annotations

from pathlib import Path

from mlpipelines.ingestion.sources.contract import Chunk, RowSource, Window
from mlpipelines.project import Source

__all__ = ["Chunk", "RowSource", "Window", "open_source"]


def open_source(source: Source, project_dir: Path) -> RowSource:
    """The adapter for `source.kind`. Relative paths start at `project_dir`.

    Raises:
        ConfigError: a file, a variable of the environment or a driver is missing.
    """
    if source.kind in ("parquet", "csv"):
        from mlpipelines.ingestion.sources.files import open_files

        return open_files(source, project_dir)
    if source.kind == "sql":
        from mlpipelines.ingestion.sources.sql import SqlSource

        return SqlSource.open(source, project_dir)
    if source.kind == "bigquery":
        from mlpipelines.ingestion.sources.bigquery import BigQuerySource

        return BigQuerySource.open(source)
    if source.kind == "feature_views":
        from mlpipelines.ingestion.sources.feature_views import FeatureViewsSource

        return FeatureViewsSource.open(source, project_dir)
    from mlpipelines.ingestion.sources.python_entry import PythonSource

    return PythonSource.open(source, project_dir)
