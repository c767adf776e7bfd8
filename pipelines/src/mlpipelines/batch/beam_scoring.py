"""The Beam pipeline: row groups spread over workers, the model loaded once in each, one output file put together for each input.

```
row groups → score (parts on disk) → by file → assemble
files without rows ───────────────────┘
```

What passes between the boxes is small: where a part lies and how many rows it has. Rows go through files that every worker can reach, a
folder on one machine, a shared volume on a cluster. The runner is project.yaml's (`beam`).
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.utils.shared import Shared

from mlpipelines.batch.assembly import assemble
from mlpipelines.batch.scoring import FileTask, Job, Part, RowGroup, row_groups, score_group
from mlpipelines.evaluation.served_model import ServedModel, load_model
from mlpipelines.progress import progress
from mlpipelines.transformation.beam_pipeline import pipeline_options, quiet_beam


class LoadedModel:
    """The model of one process. Beam's shared handle keeps it for as long as somebody asks for it."""

    def __init__(self, folder: Path) -> None:
        opened = contextlib.ExitStack()
        self.model: ServedModel = opened.enter_context(load_model(folder))
        weakref.finalize(self, opened.close)  # at the latest when Python ends, while TensorFlow is still there


class SharedModel:
    """A handle on the model of whichever process it is opened in; the driver's own is the same one on one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shared = Shared()

    def open(self) -> LoadedModel:
        """Load the model, or take the one that this process has loaded already."""
        loaded: LoadedModel = self._shared.acquire(lambda: LoadedModel(self._folder), tag=str(self._folder))
        return loaded


def score_files(job: Job, shared: SharedModel, tasks: Sequence[FileTask]) -> None:
    """Score the files; afterwards each has its `finished.json`.

    Raises:
        ConfigError: an option of Beam is wrong.
        Conflict: an input changed while it was being scored.
        Unavailable: the machine cannot bear the model.
    """
    groups = [group for task in tasks for group in row_groups(task)]
    with quiet_beam():
        pipeline = beam.Pipeline(options=pipeline_options(job.project, "batch"))
        parts = pipeline | "RowGroups" >> beam.Create(groups) | "Score" >> beam.ParDo(_Score(job, shared))
        heads = pipeline | "Files" >> beam.Create([(task.number, None) for task in tasks])
        by_file = (parts, heads) | "Parts" >> beam.Flatten() | "ByFile" >> beam.GroupByKey()
        _ = by_file | "Assemble" >> beam.ParDo(_Assemble(job, shared, {task.number: task for task in tasks}))
        pipeline.run().wait_until_finish()


class _WithModel(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    def __init__(self, job: Job, shared: SharedModel) -> None:
        self._job = job
        self._shared = shared
        self._loaded: LoadedModel | None = None

    def setup(self) -> None:
        """Once a worker."""
        self._loaded = self._shared.open()

    def _model(self) -> ServedModel:
        assert self._loaded is not None
        return self._loaded.model


class _Score(_WithModel):
    """`RowGroup` → (number of the file, `Part`)."""

    def process(self, group: RowGroup) -> Iterator[tuple[int, Part]]:
        """Score one row group."""
        progress(f"scoring {group.task.file.name} from row {group.first_row:,}")
        yield group.task.number, score_group(self._job, self._model(), group)


class _Assemble(_WithModel):
    """(number of the file, its parts and a None) → the output file."""

    def __init__(self, job: Job, shared: SharedModel, tasks: dict[int, FileTask]) -> None:
        super().__init__(job, shared)
        self._tasks = tasks

    def process(self, element: tuple[int, Iterable[Any]]) -> Iterator[None]:
        """Put one file together."""
        number, found = element
        parts = [part for part in found if part is not None]
        assemble(self._job, self._model(), self._tasks[number], parts)
        yield from ()
