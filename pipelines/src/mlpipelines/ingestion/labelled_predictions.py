"""The predictions of a model whose truth somebody told, from the prediction log: what may become further rows to learn from.

The one place where `ingest` asks serving's log. What is read here is judged by `learned_rows`, which knows no files.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.freshness import learns_from_predictions
from mlpipelines.project import Project
from mlserving import errors as serving

PREDICTION_ID, ROW, TIME, TRUTH, RECEIVED = "prediction_id", "row", "time", "truth", "received_at"
TELLER = "teller"
"""Who told the label that holds: `reviewers`, or `labels` that came by other ways."""


def read_labelled(project: Project, predictions: Path) -> pa.Table | None:
    """The logged predictions of the project's model with the label that holds for each; None where there is none.

    Columns: those named above (times are aware), and `feature/<name>` for each of the project's features that any version's log has.

    Raises:
        Unavailable: the log is being rewritten all the time.
        ConfigError: a column is a list in one version and a scalar in another.
    """
    if not learns_from_predictions(project) or not (predictions / "log" / f"model={project.model_name}").is_dir():
        return None
    from mlserving.predictions import reading
    from mlserving.predictions.records import BY_REVIEW, FEATURE

    try:
        logged = reading.log(predictions, project.model_name).schema.names
        features = [FEATURE + name for name in project.features if FEATURE + name in logged]
        batches = list(reading.joined(predictions, project.model_name, columns=features))
    except serving.Unavailable as error:
        raise Unavailable(f"The predictions of {project.model_name} cannot be read: {error}") from error
    except serving.Conflict as error:
        raise ConfigError(f"{error} Or learn from no predictions: source.learn_from: [] in project.yaml.") from error
    if not batches:
        return None
    table = pa.Table.from_batches(batches)
    tellers = pc.if_else(pc.equal(table["label_source"], BY_REVIEW), "reviewers", "labels")
    return table.select([PREDICTION_ID, ROW, TIME, TRUTH, RECEIVED, *features]).append_column(TELLER, tellers)
