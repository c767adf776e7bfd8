"""What lies in the folder of each artifact that passes between steps.

A Kubeflow artifact is one path. These classes name what is below it, so that the step that writes and the steps that read
cannot disagree. `docs/reference/artifacts.md` is generated from the docstrings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SplitName = Literal["train", "validation"]

KEY = "__key"
"""String column in every Parquet file: the row's identity (the project's key as text, or a hash of the row's content)."""
PREDICTIONS = "predictions"
"""The span of rows that are labelled predictions (`source.learn_from`); every other span holds rows of the source."""
LABEL = "__label"
"""In transformed data: int64 class id for `class`, 0/1 for `flag`, list<int64> for `classes`, float32 for `number`; absent without a training label."""


@dataclass(frozen=True, slots=True)
class Data:
    """`ingest`'s rows for training and validation, in our column names and canonical types.

    Types on disk: string → string, integer → int64, float → float32, timestamp → int64 (seconds since 1970, UTC),
    bytes → binary, lists → list<…>; nulls stay null. Every file also has `KEY`.
    """

    root: Path

    @property
    def manifest(self) -> Path:
        """`DataManifest` as JSON."""
        return self.root / "manifest.json"

    def spans(self, split: SplitName) -> list[Path]:
        """The span folders of a split, oldest first, for example `train/2016-04`; each holds `*.parquet`. `PREDICTIONS` comes last."""
        return sorted(p for p in (self.root / split).iterdir() if p.is_dir())

    def files(self, split: SplitName) -> list[Path]:
        """All Parquet files of a split, in the order of their spans."""
        return [file for span in self.spans(split) for file in sorted(span.glob("*.parquet"))]

    def source_files(self, split: SplitName) -> list[Path]:
        """Those of the source's rows. Statistics, schema and drift are about these: of predictions, people chose which were labelled."""
        return [file for file in self.files(split) if file.parent.name != PREDICTIONS]


@dataclass(frozen=True, slots=True)
class TestSet:
    """A copy of the sealed test set, for the steps that judge."""

    root: Path

    @property
    def rows(self) -> Path:
        """All rows, one Parquet file, the columns of `Data`."""
        return self.root / "test.parquet"

    @property
    def manifest(self) -> Path:
        """Rows, window, content hash, when and by which run it was sealed."""
        return self.root / "manifest.json"


@dataclass(frozen=True, slots=True)
class Statistics:
    """TFDV statistics of each split."""

    root: Path

    def of(self, split: SplitName) -> Path:
        """A serialised `DatasetFeatureStatisticsList`."""
        return self.root / f"{split}.pb"

    @property
    def whole(self) -> Path:
        """The same of both splits together, as TFDV merges it. What the schema and the last accepted data are held against."""
        return self.root / "whole.pb"


@dataclass(frozen=True, slots=True)
class Transformed:
    """`transform`'s output: features as the model reads them, and the graph that makes them."""

    root: Path

    @property
    def transform_output(self) -> Path:
        """The folder that `tft.TFTransformOutput` opens."""
        return self.root / "transform_output"

    @property
    def classes(self) -> Path:
        """JSON list of class names in the order of their ids; an empty list without classes."""
        return self.root / "classes.json"

    @property
    def manifest(self) -> Path:
        """Rows of each split, feature specification, analyzer cache hits, seconds."""
        return self.root / "manifest.json"

    def files(self, split: SplitName) -> list[Path]:
        """Parquet files with the transformed features (scalars, or fixed-size lists), `LABEL` and `KEY`."""
        return sorted((self.root / split).rglob("*.parquet"))


@dataclass(frozen=True, slots=True)
class Model:
    """`train`'s output."""

    root: Path

    @property
    def saved_model(self) -> Path:
        """SavedModel over raw features, the transform inside."""
        return self.root / "saved_model"

    @property
    def training(self) -> Path:
        """`TrainingReport` as JSON: epochs, metrics, seconds, examples/s, step time, input wait share, peak memory, devices."""
        return self.root / "training.json"

    @property
    def reference(self) -> Path:
        """Parquet: up to a thousand raw validation rows and, as `expected/<output>` columns, what the trained model in memory
        answered for their rows as *Beam* transformed them. `publish` compares the exported model with it.
        """
        return self.root / "reference.parquet"

    @property
    def logs(self) -> Path:
        """TensorBoard logs and the profiler trace."""
        return self.root / "logs"

    @property
    def trained(self) -> Path:
        """`Trained`: what a later run builds on that trains nothing. Only where `model.py` has a `finish`."""
        return self.root / "trained"


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training left for runs that train nothing (`training.reuse`). It is registered beside the SavedModel."""

    root: Path

    @property
    def facts(self) -> Path:
        """`TrainedFacts` as JSON: what `build` was told, and which rows and code the weights come from."""
        return self.root / "trained.json"

    @property
    def weights(self) -> Path:
        """The values of the trained model's variables, in their order (.npz)."""
        return self.root / "weights.npz"

    @property
    def transform_output(self) -> Path:
        """The transform that the weights belong to, as `Transformed.transform_output`."""
        return self.root / "transform_output"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`evaluate`'s output."""

    root: Path

    @property
    def verdict(self) -> Path:
        """`Verdict` as JSON."""
        return self.root / "verdict.json"

    @property
    def report(self) -> Path:
        """The verdict as a page."""
        return self.root / "verdict.html"

    @property
    def predictions(self) -> Path:
        """Parquet: `KEY`, the label, and the challenger's outputs on the sealed test set."""
        return self.root / "predictions.parquet"

    @property
    def curves(self) -> Path:
        """JSON for the Kubeflow page: confusion matrix, ROC and PR curves where they apply."""
        return self.root / "curves.json"
