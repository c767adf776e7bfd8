"""The analysing half of `steps/transform.py` on Beam: what is cached is read, the rest is counted, and what was counted is kept.

TensorFlow Transform takes the training rows as named data sets and, for each, the accumulators that it need not make again.
All cached units become one such data set, "cached": merging does not care from which span an accumulator comes, and every
further data set would cost more than a second in Beam's graph. Each fresh unit is a data set of its own, so that its
accumulators can be kept apart. `span_cache` says which is which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.beam import analysis_graph_builder, analyzer_cache
from tfx_bsl.tfxio.tensor_adapter import TensorAdapter

from mlpipelines.artifacts import Data
from mlpipelines.project import Project
from mlpipelines.transformation import beam_parquet
from mlpipelines.transformation.preprocessing import Preprocessing
from mlpipelines.transformation.span_cache import Plan, SpanCache, Unit

_CACHED = analyzer_cache.DatasetKey("cached")
_FRACTIONS = (0.15, 0.6)
"""Shares of the whole step between which rows are analysed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What is analysed, by what, and where results are kept."""

    project: Project
    preprocessing: Preprocessing
    source: Data
    plan: Plan
    cache: SpanCache

    def add_to(self, pipeline: beam.Pipeline) -> tuple[Any, bool]:
        """Let `pipeline` analyse and keep. Returns the transform function, and whether rows of cached spans are read again.

        That is so when TensorFlow Transform cannot cache one of the analysers that the project uses.

        Raises:
            ConfigError: `preprocessing_fn` is wrong.
        """
        known = self._known(pipeline)
        again = self._reads_again(known)
        datasets = {_key(unit): self._rows(pipeline, unit.name, (unit,)) for unit in self.plan.fresh}
        if self.plan.kept:
            datasets[_CACHED] = self._rows(pipeline, "again", self.plan.kept) if again else None
        analyse = tft_beam.AnalyzeDatasetWithCache(self.preprocessing, pipeline=pipeline)
        config = beam_parquet.adapter_config(self.project, passed_through=False)
        transform_fn, found = (datasets, known, config) | analyse
        self._keep(pipeline, found or {})
        return transform_fn, again

    def _known(self, pipeline: beam.Pipeline) -> dict[Any, Any]:
        """The accumulators of the kept units, as far as every unit has them."""
        analyzers = [set(self.cache.read(unit) or ()) for unit in self.plan.kept]
        tags = {analyzer: str(number) for number, analyzer in enumerate(sorted(set.intersection(*analyzers)))} if analyzers else {}
        if not tags:
            return {}
        units = pipeline | "CachedUnits" >> beam.Create(self.plan.kept)
        read = units | "ReadUnits" >> beam.ParDo(_ReadUnit(self.cache, tags)).with_outputs(*tags.values())
        return {_CACHED: analyzer_cache.DatasetCache({analyzer: read[tag] for analyzer, tag in tags.items()}, None)}

    def _reads_again(self, known: Mapping[Any, Any]) -> bool:
        if not self.plan.kept:
            return False
        specs = TensorAdapter(beam_parquet.adapter_config(self.project, passed_through=False)).OriginalTypeSpecs()
        keys = {_CACHED, *map(_key, self.plan.fresh)}
        read = analysis_graph_builder.get_analysis_dataset_keys(self.preprocessing, specs, keys, known, force_tf_compat_v1=False)
        return _CACHED in read

    def _rows(self, pipeline: beam.Pipeline, name: str, units: tuple[Unit, ...]) -> beam.PCollection:
        wanted = {span.name for unit in units for span in unit.spans}
        files = [file for file in self.source.files("train") if file.parent.name in wanted]
        groups = beam_parquet.row_groups(files, "analysing", _FRACTIONS)
        return pipeline | f"Groups[{name}]" >> beam.Create(groups) | f"Read[{name}]" >> beam.ParDo(beam_parquet.ReadFeatures(self.project))

    def _keep(self, pipeline: beam.Pipeline, found: Mapping[Any, Any]) -> None:
        """Write what was found in each fresh unit to the cache."""
        entries = {unit: found[_key(unit)].cache_dict for unit in self.plan.fresh if _key(unit) in found}
        if not entries:
            return
        parts = [
            values | f"Keep[{unit.name}][{number}]" >> beam.Map(_labelled, unit=unit.name, analyzer=analyzer)
            for unit, by_analyzer in entries.items()
            for number, (analyzer, values) in enumerate(by_analyzer.items())
        ]
        names = pipeline | "FreshUnits" >> beam.Create([(unit.name, None) for unit in entries])  # one may have found nothing at all
        write = _WriteUnit(self.cache, {unit.name: (unit, tuple(by_analyzer)) for unit, by_analyzer in entries.items()})
        _ = [*parts, names] | "Parts" >> beam.Flatten() | "ByUnit" >> beam.GroupByKey() | "WriteUnits" >> beam.ParDo(write)


def _key(unit: Unit) -> Any:
    return analyzer_cache.DatasetKey(unit.name)


def _labelled(accumulator: bytes, unit: str, analyzer: bytes) -> tuple[str, tuple[bytes, bytes]]:
    return unit, (analyzer, accumulator)


class _ReadUnit(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """`Unit` → its accumulators, one output for each analyser."""

    def __init__(self, cache: SpanCache, tags: Mapping[bytes, str]) -> None:
        self._cache = cache
        self._tags = tags

    def process(self, unit: Unit) -> Iterator[Any]:
        """Read the file a second time; what lies in a pipeline's definition must stay small."""
        for analyzer, accumulators in (self._cache.read(unit) or {}).items():
            if analyzer in self._tags:
                yield from (beam.pvalue.TaggedOutput(self._tags[analyzer], accumulator) for accumulator in accumulators)


class _WriteUnit(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """(unit's name, accumulators with their analysers) → a file in the cache."""

    def __init__(self, cache: SpanCache, units: Mapping[str, tuple[Unit, tuple[bytes, ...]]]) -> None:
        self._cache = cache
        self._units = units

    def process(self, element: tuple[str, Any]) -> Iterator[None]:
        """Write the unit, with an empty list for an analyser that found nothing."""
        unit, analyzers = self._units[element[0]]
        entries: dict[bytes, list[bytes]] = {analyzer: [] for analyzer in analyzers}
        for part in element[1]:
            if part is not None:
                entries[part[0]].append(part[1])
        self._cache.write(unit, entries)
        yield from ()
