"""From rows to what the model reads: the project's `preprocessing_fn` analysed on the training rows and applied to all.

The third station after `ingest` and `validate`. TensorFlow Transform runs the function in two phases on Apache Beam, on one
machine or on a cluster alike: analysers (vocabularies, quantiles, means) look at every training row once, then the finished
graph turns training and validation rows into features. The graph itself is kept; `train` puts it into the exported model, so
that serving cannot compute a feature differently.

`beam_analysis` holds the analysing half with its cache, `beam_parquet` reads and writes rows, `preprocessing` guards the
project's code.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.internal import cloudpickle
from tensorflow_transform.tf_metadata import schema_utils

from mlpipelines.artifacts import Data, SplitName, Trained, Transformed
from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.own_code import hash_code
from mlpipelines.progress import note, progress
from mlpipelines.project import Project
from mlpipelines.training.trained import TrainedFacts, require_same
from mlpipelines.transformation import beam_parquet, label_codes
from mlpipelines.transformation.beam_analysis import Analysis
from mlpipelines.transformation.beam_pipeline import pipeline_options, quiet_beam, without_step_name
from mlpipelines.transformation.preprocessing import analysis_hash, load_preprocessing, own_modules
from mlpipelines.transformation.span_cache import Plan, Span, SpanCache, plan, prune
from mlpipelines.workspace import ProjectState, read_json, write_json

_SPLITS: tuple[SplitName, ...] = ("train", "validation")
_FRACTIONS = (0.6, 0.98)
"""Shares of the whole step between which rows are transformed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is analysed and where the rest goes."""

    analysis: Analysis
    target: Transformed
    classes: tuple[str, ...]
    trained: Path | None = None
    """`Trained`, whose graph is applied; nothing is analysed then."""

    @property
    def project(self) -> Project:
        return self.analysis.project

    @property
    def temporary(self) -> Path:
        """For TensorFlow Transform's intermediate graphs: beside the output, where every worker can read."""
        return self.target.root / ".beam"


def transform(
    *,
    project: Project,
    project_dir: Path,
    state: ProjectState,
    data: Path,
    transformed: Path,
    schema: Path | None = None,
    trained: Path | None = None,
) -> None:
    """Analyse the training rows of `data` and write both splits, transformed, into `transformed` (`artifacts.Transformed`).

    `schema` is not read: `validate` has held the rows against it. As an argument it makes a new schema a new transform.
    With `trained` (`artifacts.Trained`) nothing is analysed: the graph that its weights belong to is applied as it is.

    Raises:
        ConfigError: `features.py` is wrong, or an option of Beam.
        DataRejected: a file, a column or a label cannot be used.
    """
    del schema
    started = time.monotonic()
    progress("reading features.py", 0.0)
    job = _prepared(project, project_dir, state, Data(data), Transformed(transformed), trained=trained)
    try:
        with quiet_beam():
            again = _run(job)
    except (ValueError, RuntimeError, TypeError, tf.errors.OpError) as error:  # what Beam and TensorFlow make of a failing graph
        raise _explained(job, error) from error
    finally:
        shutil.rmtree(job.temporary, ignore_errors=True)
    prune(state.analyzer_cache, now=time.time())
    _report(job, read_again=again, seconds=time.monotonic() - started)


def _prepared(project: Project, project_dir: Path, state: ProjectState, source: Data, target: Transformed, *, trained: Path | None) -> _Job:
    if trained is not None:
        require_same(TrainedFacts.read(trained), project, hash_code(project, project_dir, "train"))
    preprocessing = load_preprocessing(project_dir)
    if project.beam.runner != "direct":
        for module in own_modules(project_dir).values():
            cloudpickle.register_pickle_by_value(module)  # a worker elsewhere has no project folder
    target.manifest.unlink(missing_ok=True)  # first: a manifest says that the rest is whole
    for left in ("train", "validation", "transform_output", ".beam"):
        shutil.rmtree(target.root / left, ignore_errors=True)  # of an earlier or a killed run
    features = repr(sorted(project.features.items()))
    cache = SpanCache(state.analyzer_cache / analysis_hash(project_dir, features, tft.__version__, tf.__version__)[:20])
    spans = _spans(source)
    planned = _planned(spans, cache) if trained is None else Plan(kept=(), fresh=())  # a graph that is there has been analysed
    analysis = Analysis(project=project, preprocessing=preprocessing, source=source, plan=planned, cache=cache)
    return _Job(analysis=analysis, target=target, classes=_classes(project, source), trained=trained)


def _spans(source: Data) -> list[Span]:
    described = read_json(source.manifest)["spans"]["train"]
    spans = [Span(name=name, sha256=span["sha256"], rows=span["rows"]) for name, span in sorted(described.items())]
    if not any(span.rows for span in spans):
        raise DataRejected(f"{source.root / 'train'} holds no rows. Look at the source's time window, then `millrace run` again.")
    return spans


def _planned(spans: Sequence[Span], cache: SpanCache) -> Plan:
    cached = cache.units()
    while True:
        planned = plan(spans, cached)
        damaged = [unit for unit in planned.kept if cache.read(unit) is None]
        if not damaged:
            return planned
        cached = [unit for unit in cached if unit not in damaged]


def _classes(project: Project, source: Data) -> tuple[str, ...]:
    label = label_codes.learned(project)
    if label is None:
        return ()
    return label_codes.class_names(label, (beam_parquet.read_column(file, label.column) for file in source.files("train")))


def _run(job: _Job) -> bool:
    """Build and run the pipeline. Returns whether rows of cached spans had to be read again."""
    pipeline = beam.Pipeline(options=pipeline_options(job.project, "transform"))
    job.temporary.mkdir(parents=True)
    with tft_beam.Context(temp_dir=str(job.temporary)):
        transform_fn, again = _taken(job, pipeline) if job.trained else _analysed(job, pipeline)
    with tft_beam.Context(temp_dir=str(job.temporary), passthrough_keys=set(beam_parquet.PASSED_THROUGH)):
        _apply(job, pipeline, transform_fn)
    pipeline.run().wait_until_finish()
    return again


def _analysed(job: _Job, pipeline: beam.Pipeline) -> tuple[Any, bool]:
    progress("tracing preprocessing_fn", 0.05)
    transform_fn, again = job.analysis.add_to(pipeline)
    _ = transform_fn | tft_beam.WriteTransformFn(str(job.target.transform_output))
    return transform_fn, again


def _taken(job: _Job, pipeline: beam.Pipeline) -> tuple[Any, bool]:
    """The graph of an earlier training."""
    assert job.trained is not None
    progress("taking the transform that was trained on", 0.05)
    shutil.copytree(Trained(job.trained).transform_output, job.target.transform_output)
    return pipeline | tft_beam.ReadTransformFn(str(job.target.transform_output)), False


def _apply(job: _Job, pipeline: beam.Pipeline, transform_fn: Any) -> None:
    """Let `pipeline` apply the finished graph to both splits and write them."""
    files = [(split, file) for split in _SPLITS for file in job.analysis.source.files(split)]
    groups = beam_parquet.row_groups([file for _, file in files], "transforming", _FRACTIONS)
    rows = pipeline | "Groups" >> beam.Create(groups) | "ReadRows" >> beam.ParDo(beam_parquet.ReadRows(job.project, job.classes))
    config = beam_parquet.adapter_config(job.project, passed_through=True)
    result, metadata = ((rows, config), transform_fn) | tft_beam.TransformDataset(output_record_batches=True)
    described = getattr(metadata, "dataset_metadata", metadata)  # a graph that was read again brings its metadata without a cover
    spec = schema_utils.schema_as_feature_spec(described.schema).feature_spec
    shapes = {name: tuple(feature.shape) for name, feature in sorted(spec.items())}
    folders = [str(job.target.root / split / file.parent.name) for split, file in files]
    label = label_codes.learned(job.project)
    _ = result | "WriteRows" >> beam.ParDo(beam_parquet.WriteRows(folders, shapes, label_codes.encoded_type(label) if label else None))


def _explained(job: _Job, error: Exception) -> ConfigError:
    """The failure of a graph that was traced well, for example of `tf.strings.to_number` on a text."""
    text = without_step_name(str(error)).split("Batch instances:")[0]
    text = text.removeprefix("An error occurred while trying to apply the transformation:").strip().rstrip(".").strip('"')
    file = job.analysis.preprocessing.file
    return ConfigError(f"{file}: what preprocessing_fn builds fails on the rows: {text[:2000]}\nCorrect it, then `millrace run` again.")


def _report(job: _Job, *, read_again: bool, seconds: float) -> None:
    """Write classes and manifest, and tell the run."""
    output = tft.TFTransformOutput(str(job.target.transform_output))
    rows = {split: _rows(job.target.files(split)) for split in _SPLITS}
    spec = sorted(output.transformed_feature_spec().items())
    assets = sorted((Path(output.transform_savedmodel_dir) / "assets").glob("*"))
    hits = sorted(span.name for unit in job.analysis.plan.kept for span in unit.spans)
    misses = sorted(span.name for unit in job.analysis.plan.fresh for span in unit.spans)
    manifest = {
        "rows": rows,
        "without_label": {split: _rows(job.analysis.source.files(split)) - rows[split] for split in _SPLITS},
        "features": {name: {"dtype": feature.dtype.name, "shape": list(feature.shape)} for name, feature in spec},
        "vocabularies": {file.name: int(output.vocabulary_size_by_name(file.name)) for file in assets},
        "cache": {"hits": hits, "misses": misses, "read_again": read_again},
        "seconds": round(seconds, 2),
    }
    write_json(job.target.classes, list(job.classes))
    write_json(job.target.manifest, manifest)
    reused = f", {len(hits)} as before" if hits else ""
    analysed = "analysed before" if job.trained else f"{len(misses)} spans analysed{reused}"
    summary = f"{len(spec)} features of {sum(rows.values()):,} rows, {analysed}"
    note(rows=rows, features=len(spec), cached_spans=len(hits), analysed_spans=len(misses), summary=summary)


def _rows(files: list[Path]) -> int:
    return sum(pq.read_metadata(file).num_rows for file in files)
