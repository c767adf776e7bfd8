"""What a version carries so that it can be logged, watched and reviewed: how its training was distributed, how it answered, and what its project asks.

The gateway, the monitor (`mlserving.monitor`) and the review queue (`mlserving.review`) stand beside the servers, where neither training data nor project files are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from tensorflow_metadata.proto.v0 import statistics_pb2

from mlpipelines.artifacts import Data, Evaluation, Statistics
from mlpipelines.errors import Unavailable
from mlpipelines.project import Project
from mlpipelines.rollout_wish import log_of
from mlpipelines.validation.columns import read_statistics
from mlserving.monitor.reference import PREDICTIONS, SLICE
from mlserving.monitor.settings import MOST_SLICES, Capacity, MonitorSettings
from mlserving.statistics.columns import columns_of
from mlserving.store import MONITOR_SETTINGS, REVIEW_SETTINGS, SERVING_SETTINGS, TRAINING_STATISTICS
from mlserving.tracks.carried import Carried

_PREDICTED = "predicted/"
_BATCH_ROWS = 65_536
_FLOORS = {"classification": ("accuracy",), "detection": ("recall_at_capacity",)}
"""The metrics of a verdict whose floor the monitor can hold answers against."""


def write_watching(folder: Path, project: Project, *, data: Path, statistics: Path, evaluation: Path) -> None:
    """Write training statistics, and the settings of gateway, monitor and review, into the version that is in `folder`.

    Args:
        folder: of the SavedModel.
        project: what it says of validation, evaluation, deployment, monitor and review.
        data: the `Data` artifact, whose training rows are described slice by slice where the project names slices.
        statistics: the `Statistics` artifact; the training split's are taken, of the features only.
        evaluation: the `Evaluation` artifact, whose answers on the sealed test set are described.

    Raises:
        Unavailable: the disk is full or cannot be written.
        ConfigError: the statistics are damaged.
    """
    carried = statistics_pb2.DatasetFeatureStatisticsList(datasets=[_features(project, statistics)])
    answers = Evaluation(evaluation).predictions
    if answers.is_file():
        carried.datasets.append(describe_answers(answers))
    carried.datasets.extend(describe_slices(project, data, carried.datasets[0]))
    try:
        (folder / TRAINING_STATISTICS).parent.mkdir(parents=True, exist_ok=True)
        (folder / TRAINING_STATISTICS).write_bytes(carried.SerializeToString(deterministic=True))
        (folder / MONITOR_SETTINGS).write_text(monitor_settings(project).model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / SERVING_SETTINGS).write_text(serving_settings(project).model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / REVIEW_SETTINGS).write_text(project.review.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise Unavailable(
            f"What monitor and review need could not be written to {folder}: {error.strerror or error}. Nothing was published. "
            "Free some space and run `millrace run` again."
        ) from error


def serving_settings(project: Project) -> Carried:
    """How requests are dealt and logged before any rollout says so."""
    return Carried(sticky=project.deployment.sticky, log=log_of(project))


def describe_answers(predictions: Path) -> statistics_pb2.DatasetFeatureStatistics:
    """Statistics of each output that is one value a row."""
    from mlpipelines.steps.statistics import describe

    with pq.ParquetFile(predictions) as file:
        outputs = [field.name for field in file.schema_arrow if field.name.startswith(_PREDICTED) and not pa.types.is_nested(field.type)]
        described = describe(_outputs(file, outputs), PREDICTIONS)
    return described.datasets[0]


def describe_slices(
    project: Project, data: Path, whole: statistics_pb2.DatasetFeatureStatistics
) -> Iterator[statistics_pb2.DatasetFeatureStatistics]:
    """Statistics of the training rows of each slice that the project names: of the most frequent values that have rows enough."""
    from mlpipelines.steps.statistics import describe

    columns = columns_of(whole)
    for name in project.monitor.slices:
        texts = columns[name].texts if name in columns else None
        for value, count in list(texts.counts.items())[:MOST_SLICES] if texts is not None else ():
            if count >= project.monitor.min_rows:
                rows = ds.dataset(Data(data).files("train")).to_batches(filter=ds.field(name) == value, columns=list(project.features))
                yield describe(rows, f"{SLICE}{name}={value}").datasets[0]


def _outputs(file: pq.ParquetFile, names: list[str]) -> Iterator[pa.RecordBatch]:
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=names):
        kept = [
            column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column for column in batch.columns
        ]  # TFDV knows no booleans
        yield pa.RecordBatch.from_arrays(kept, names=[name.removeprefix(_PREDICTED) for name in batch.schema.names])


def _features(project: Project, statistics: Path) -> statistics_pb2.DatasetFeatureStatistics:
    """Of the training rows; neither context nor label is ever asked of the model."""
    whole = read_statistics(Statistics(statistics).of("train")).datasets[0]
    kept = [feature for feature in whole.features if feature.path.step[0] in project.features]
    features = statistics_pb2.DatasetFeatureStatistics(name=whole.name, num_examples=whole.num_examples)
    features.features.extend(kept)
    return features


def monitor_settings(project: Project) -> MonitorSettings:
    """What the project says of watching, as the monitor reads it."""
    wanted, rules, judged = project.monitor, project.validation, project.evaluation
    moving = [name for name, kind in project.features.items() if kind in ("timestamp", "bytes") and name not in rules.columns]
    tasks = {"classification": "classification", "detection": "detection", "regression": "regression"}
    return MonitorSettings.model_validate(
        {
            "task": tasks.get(project.task, "other"),
            "positive": project.label.positive if project.label is not None else None,
            "drift": wanted.drift or min(rules.drift or 0.1, 1.0),
            "columns": {name: min(threshold, 1.0) for name, threshold in rules.columns.items()},
            "ignore": tuple(dict.fromkeys([*rules.ignore, *moving, *([project.key] if project.key in project.features else [])])),
            "missing": min(rules.max_missing_change, 1.0),
            "false_alarms": wanted.false_alarms,
            "slices": tuple(wanted.slices),
            "min_rows": wanted.min_rows,
            "floor": wanted.floor or (judged.floor if judged.metric in _FLOORS.get(project.task, ()) else None),
            "capacity": Capacity(cases=judged.capacity.cases, per=judged.capacity.per) if judged.capacity is not None else None,
            "label_delay_hours": wanted.label_delay_hours,
        }
    )
