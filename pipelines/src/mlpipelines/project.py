"""What an ML engineer writes in `project.yaml`, as one model.

The file is parsed here, once, at the edge; every step receives the parsed `Project`. Field docstrings are the reference
page and the JSON Schema (`make generate`), so they are written for the reader of that page. `scoped` is what keeps a
cached step cached: it hands a step only the sections that its outcome depends on.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlserving.review.settings import ReviewSettings
from mlserving.rollout.plan import Approval, Plan

NAME = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
STEPS = ("labels", "ingest", "statistics", "validate", "transform", "train", "evaluate", "register", "publish", "report")

ColumnType = Literal["string", "integer", "float", "timestamp", "bytes", "[string]", "[integer]", "[float]"]
Step = Literal["labels", "ingest", "statistics", "validate", "transform", "train", "evaluate", "register", "publish", "report", "batch"]


class Section(BaseModel):
    """A part of the file. Unknown keys are refused, and the error names their path."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


SOURCE_PLACE = ("path", "url", "table", "query", "billing_project", "entry", "views", "options")
"""The fields of `Source` that say where its rows are; which of them count follows from its kind."""


class Source(Section):
    """Where the rows come from."""

    kind: Literal["parquet", "csv", "sql", "bigquery", "python", "feature_views"]
    """`parquet` and `csv` read `path`; `sql` any SQLAlchemy `url`; `bigquery` its Storage API; `python` calls `entry`; `feature_views` makes rows of the
    events in the warehouse at `url`, as the contract `views` says ([features](../features.md))."""
    path: str | None = None
    """A file, a folder or a glob, for `parquet` and `csv`. Relative paths start at the project folder."""
    url: str | None = None
    """An SQLAlchemy URL, for `sql` and `feature_views`. `${NAME}` is replaced from the environment, so that no password is in the file."""
    table: str | None = None
    """The table, for `sql` and `bigquery` (`project.dataset.table`)."""
    query: str | None = None
    """A SELECT in place of `table`. The time window is applied around it."""
    billing_project: str | None = None
    """The Google Cloud project that pays, for `bigquery`."""
    entry: str | None = None
    """`module:function` in the project folder, for `python`: called with `since`, `until` and `options`, yields Arrow record batches."""
    views: str | None = None
    """The feature contract, for `feature_views` ([every field](feature-views.md)). Relative paths start at the project folder."""
    options: dict[str, Any] = {}
    """Passed on: keyword arguments of `entry`, reader options of `csv` (`delimiter`, `encoding`)."""
    window_days: int | None = Field(default=None, gt=0)
    """Train on the last so many days, counted back from the newest row. Everything, where not set."""
    incremental: bool = False
    """Read only rows newer than the last run's watermark and keep what was read before. Needs `time`."""
    lateness_hours: int = Field(default=0, ge=0)
    """Read again this far behind the watermark, for rows that arrive late. Needs `key`, which tells them apart."""
    span: Literal["day", "week", "month", "none"] = "month"
    """Rows are kept in one folder for each span of `time`; a span that did not change is not analysed again."""
    images: list[str] = []
    """Columns of type `bytes` that are images (JPEG, PNG, GIF, BMP). Each is decoded once at ingest: a row whose image is broken is left out
    and named, and more than one in a hundred refuse the run. Without it, a broken image fails the training that meets it."""
    learn_from: list[Literal["reviewers", "labels"]] = ["reviewers"]
    """Predictions that become rows to learn from, beside the source's, once somebody told what they should have been: `reviewers` on the review
    page, `labels` that came by other ways. Only where every feature is logged (`deployment.log.features`). None of them is ever in the test set."""

    @model_validator(mode="after")
    def _complete(self) -> Source:
        needs = {
            "parquet": ("path",),
            "csv": ("path",),
            "sql": ("url",),
            "python": ("entry",),
            "bigquery": (),
            "feature_views": ("url", "views"),
        }
        for field in needs[self.kind]:
            if getattr(self, field) is None:
                raise ValueError(f"a source of kind {self.kind!r} needs {field!r}")
        if self.kind in ("sql", "bigquery") and (self.table is None) == (self.query is None):
            raise ValueError(f"a source of kind {self.kind!r} needs either 'table' or 'query'")
        return self


class Label(Section):
    """What is learned, if anything."""

    column: str
    kind: Literal["class", "classes", "flag", "number"] = "class"
    """`class`: one of many; `classes`: a list of any of many; `flag`: 0 or 1; `number`: a quantity."""
    positive: str | None = None
    """For `flag` on a text column: the value that counts as 1."""
    use: Literal["training", "evaluation"] = "training"
    """`evaluation`: the model never sees it (outlier detection), it only scores the result."""
    min_rows: int = Field(default=1, ge=1)
    """Classes with fewer training rows than this are folded into `other`, for `class`."""
    other: str = "other"


class ValidationHolds(Section):
    """What the validation set must hold beside a tenth of the training rows. A run whose set does not is refused, with what is short."""

    pairs: float | None = Field(default=None, gt=0, le=1)
    """Of this share of the labels that are trained on, two rows at least: pairs known to be alike, and pairs known to differ. For text labels."""
    distinct: dict[str, int] = {}
    """Variety: by column, how many different values at least."""
    spread: dict[str, float] = {}
    """By column (a vertical, an operator): the share that each value of it must have at least; a rare one half of its share of the training rows."""
    like_newest: dict[str, float] = {}
    """Production's context: by column, how far the shares of its values may lie from those of the newest rows (total variation distance). Needs `time`."""
    newest_days: int = Field(default=30, gt=0)
    """How many days the newest rows are, counted back from the last one; sealed rows count among them."""

    @property
    def columns(self) -> set[str]:
        """Every column that is named."""
        return {*self.distinct, *self.spread, *self.like_newest}


class Split(Section):
    """Who is trained on, who watches training, and who judges. The test set is sealed on the first run only."""

    by: Literal["row", "group", "time", "column"] = "row"
    """`row`: each row by itself; `group`: all rows of one `group` value together; `time`: newest rows are the test set; `column`: as a
    `column` of the source says, where a published table comes with a split of its own."""
    group: str | None = None
    column: str | None = None
    """For `column`: its values are `train`, `validation` (or `valid`) and `test`. The first run's rows that say `test` are sealed; a later
    row that says so is left out."""
    test: float = Field(default=0.15, gt=0, lt=0.9)
    """Share of the first run's rows that is sealed, for `row` and `group`, and for `time` without `test_from`."""
    test_from: date | None = None
    """For `time`: the first run's rows from this day on are sealed."""
    gap_days: int = Field(default=0, ge=0)
    """For `time`: rows less than so many days before or after the sealed ones are not trained on. A label that is only known so many days after its
    row tells of sealed rows, too, where both are about the same. Labelled predictions keep the same distance."""
    validation: float = Field(default=0.12, gt=0, lt=0.9)
    """Share of the remaining rows; at least a tenth of the training rows, or the run is refused."""
    stratify: str | None = None
    """Keep each value's share alike in every split (the label, usually)."""
    balance: str | None = None
    """Give every value of this column (a team, a vertical) the same weight in the validation set as far as rows allow."""
    validation_holds: ValidationHolds = ValidationHolds()
    near_duplicates: list[str] = []
    """Columns whose normalised text is compared across splits; what agrees is reported in the manifest."""
    seed: int = 17

    @model_validator(mode="after")
    def _complete(self) -> Split:
        if self.by == "group" and self.group is None:
            raise ValueError("split by group needs 'group'")
        if self.gap_days and self.by != "time":
            raise ValueError("split.gap_days is about time: it needs by: time")
        if self.by == "column" and self.column is None:
            raise ValueError("split by column needs 'column'")
        return self


class LabelRules(Section):
    """What may happen to the label between two accepted data sets."""

    max_share_change: float = Field(default=0.15, gt=0)
    """Reject if a class's share moves by more than this (absolute)."""
    vanished: Literal["reject", "warn"] = "reject"
    """A class of the schema with no row at all; classes below `vanished_min_share` of the last data set only warn."""
    vanished_min_share: float = Field(default=0.005, ge=0)


class Validation(Section):
    """Rules beside the reviewed schema."""

    drift: float | None = Field(default=0.12, gt=0)
    """Largest distance to the last accepted data set before the run is refused: L-infinity for text, Jensen-Shannon for numbers."""
    skew: float | None = Field(default=0.12, gt=0)
    """The same distance between the training and validation splits."""
    columns: dict[str, float] = {}
    """A threshold of its own for a column, in place of `drift` and `skew`."""
    ignore: list[str] = []
    """Columns that are expected to move (a date): no drift or skew check."""
    max_missing_change: float = Field(default=0.2, gt=0)
    """Reject if the share of missing values in a column moves by more than this."""
    max_growth: float | None = Field(default=8.0, gt=1)
    """Reject if there are this many times the rows of the last accepted data set (ten times the rows is usually a join gone wrong)."""
    future_hours: int | None = Field(default=24, ge=0)
    """Reject rows whose `time` lies further ahead than this. None: any."""
    label: LabelRules = LabelRules()


class EarlyStopping(Section):
    """When to stop before `epochs`."""

    monitor: str = "val_loss"
    patience: int = Field(default=2, ge=1)
    min_delta: float = Field(default=0.0, ge=0)


class Training(Section):
    """How the model is fitted. `parameters` are the project's own."""

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=1024, ge=1)
    """Rows in one step, over all devices together."""
    early_stopping: EarlyStopping | None = EarlyStopping()
    class_weights: Literal["none", "balanced", "sqrt"] = "none"
    """Weights for `class` and `flag` labels: inverse frequency, or its square root."""
    seed: int = 17
    strategy: Literal["auto", "one", "mirrored", "multi-worker"] = "auto"
    """`auto`: multi-worker where TF_CONFIG names workers, mirrored for several GPUs, else one device."""
    mixed_precision: Literal["auto", "on", "off"] = "auto"
    """`auto`: bfloat16 or float16 where a GPU has it, float32 elsewhere."""
    shuffle_rows: int = Field(default=200_000, ge=1)
    """How many rows are shuffled together."""
    checkpoint_steps: int = Field(default=200, ge=1)
    """A checkpoint after so many steps and at each epoch's end; a killed run goes on from the last one."""
    profile_steps: tuple[int, int] = (5, 15)
    """First and last step of the TF Profiler trace."""
    parameters: dict[str, Any] = {}
    """Handed to `model.py` as `context.parameters`."""
    reuse: int | None = Field(default=None, ge=1)
    """A registered version. Nothing is trained: its transform and its trained weights are taken, and `model.finish` builds what is served from them
    and from today's training rows. `millrace run --reuse champion` sets it."""


class Baseline(Section):
    """What the first model must beat, with no champion there yet."""

    kind: Literal["majority", "most_frequent_by", "prior", "mean", "isolation_forest"] = "majority"
    """`majority`: the most frequent class; `most_frequent_by`: of each value of `column`; `prior`: the training share as score; `mean`;
    `isolation_forest`, for `detection`: fitted without labels on the training rows' raw features, text hashed."""
    column: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Baseline:
        if self.kind == "most_frequent_by" and self.column is None:
            raise ValueError("baseline 'most_frequent_by' needs 'column'")
        return self


class Guard(Section):
    """A metric that must not get worse while `metric` gets better."""

    metric: str
    max_drop: float = Field(default=0.01, ge=0)
    """Non-inferiority margin: the interval's lower end may not fall below minus this."""


class Slices(Section):
    """Each value of a column judged by itself."""

    column: str
    min_rows: int = Field(default=200, ge=1)
    """Smaller slices are listed and not judged."""
    max_drop: float = Field(default=0.03, ge=0)


class Capacity(Section):
    """How many cases people can look at."""

    cases: int = Field(gt=0)
    per: Literal["day", "week", "set"] = "set"
    """`set`: over the whole test set; `day`, `week`: on average, by the project's `time`."""


class Budget(Section):
    """What serving can bear."""

    latency_ms: float | None = Field(default=50.0, gt=0)
    """Median of single-request predictions."""
    size_mb: float | None = Field(default=500.0, gt=0)


class Evaluation(Section):
    """Champion against challenger on the sealed test set, or against `baseline` for the first model."""

    metric: str = "accuracy"
    """The metric that decides. Which there are follows from `task`; `docs/reference/metrics.md` lists them."""
    rule: Literal["better", "not_worse"] = "better"
    """`better`: the interval of the difference lies above `margin`; `not_worse`: above minus `margin`."""
    margin: float = Field(default=0.0, ge=0)
    reuse_margin: float = Field(default=0.005, ge=0)
    """A version that reuses a training (`training.reuse`) is held to `not_worse` with this margin, whatever `rule` says: what its new labels are
    for, the sealed rows may not hold."""
    floor: float | None = None
    """Never bless a model below this, whatever the champion does."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    resamples: int = Field(default=1000, ge=100)
    """Paired bootstrap resamples."""
    baseline: Baseline = Baseline()
    guards: list[Guard] = []
    slices: list[Slices] = []
    capacity: Capacity | None = None
    budget: Budget = Budget()


class Accelerator(Section):
    """GPUs of one step, which then runs in the image `steps-gpu`."""

    type: str
    """As the node label has it: `nvidia-tesla-t4`, `nvidia-l4`, …"""
    count: int = Field(default=1, ge=1)


class Toleration(Section):
    """A taint that the step's pod accepts."""

    key: str
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = "NoSchedule"


class Resources(Section):
    """What one step's pod asks for. No effect on one machine."""

    cpu: str = "1"
    memory: str = "4Gi"
    accelerator: Accelerator | None = None
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    retries: int = Field(default=0, ge=0)
    timeout_minutes: int | None = Field(default=None, gt=0)
    cache: bool = True
    """Reuse the last result for the same inputs. `labels`, `validate`, `evaluate`, `register`, `publish`, `report` and `batch` always run."""


class Beam(Section):
    """Where `transform` and batch scoring run."""

    runner: Literal["direct", "dataflow", "flink", "spark"] = "direct"
    options: dict[str, Any] = {}
    """Beam pipeline options, by their own names."""


class PredictionLog(Section):
    """What is kept of the predictions that are served."""

    share: float = Field(default=0.1, ge=0, le=1)
    """Share of the requests that are logged. The classes that a rollout compares are counted on these."""
    features: list[str] = []
    """Features that are kept with a prediction. One that is not named here is never written: name no personal data that is not needed."""


class Monitor(Section):
    """How the served model is watched. What counts as drift and which columns may move is said in `validation`, and holds here too."""

    slices: list[str] = []
    """Features whose values are looked at by themselves too. The gateway must log them (`deployment.log`)."""
    min_rows: int = Field(default=100, ge=20)
    """Fewer predictions than this are shown, and raise no alarm."""
    drift: float | None = Field(default=None, gt=0, le=1)
    """Distance to the training rows from which a change matters; `validation.drift`, or else 0.1, where not set."""
    false_alarms: float = Field(default=0.001, gt=0, lt=0.5)
    """The chance that one look alarms about drift where only chance was at work, over all columns and slices together."""
    floor: float | None = Field(default=None, gt=0, lt=1)
    """Alarm when accuracy (`detection`: recall at the capacity) is surely below this; `evaluation.floor` of such a metric, where not set."""
    label_delay_hours: float | None = Field(default=None, gt=0)
    """Alarm when labels take longer than this to come."""


class Explanations(Section):
    """Why a prediction is what it is: how much of it each feature makes, against a row to compare with. Asked for with `millrace predict --explain`."""

    method: Literal["shapley", "integrated_gradients"] = "shapley"
    """`shapley`: for every model; the project's features are put into the row to compare with, one by one, in many orders.
    `integrated_gradients`: for models whose transformed features are all floats; what is explained are those."""
    samples: int = Field(default=32, ge=2, le=1024)
    """`shapley`: orders, each of which asks the model about the features plus one rows; all orders are tried where they are no more. `integrated_gradients`:
    points on the way from the row to compare with."""
    compare_with: dict[str, Any] = {}
    """Feature: its value in the row to compare with, null for a missing one. What is not named is the training rows' median of a number, integer
    or time, the most frequent text where at least ten rows have it, and else missing."""


class Deployment(Section):
    """What happens to a blessed model."""

    model: str | None = None
    """Its name in the registry and in the model store; the project's name where not set."""
    track: Literal["stable", "canary"] = "stable"
    """`canary`: publishing leaves the champion where it is, and `millrace rollout start` moves the requests step by step."""
    keep_versions: int = Field(default=3, ge=1)
    """Older versions leave the model store, never the registry."""
    warmup_requests: int = Field(default=50, ge=1, le=1000)
    rollout: Plan = Plan()
    approval: Approval = Approval()
    sticky: str | None = Field(default=None, pattern=r"^[a-z0-9_-]+$")
    """A header (gRPC: a metadata key) whose value decides the track, so that a caller keeps to one version. Without it, each request is drawn by itself."""
    log: PredictionLog = PredictionLog()
    explanations: Explanations | None = None
    """Let the model be asked why, under the signature `explain`. Not exported where not set (docs/explanations.md)."""


class Schedule(Section):
    """When to retrain without being asked."""

    cron: str = Field(pattern=r"^(\S+\s+){4}\S+$")
    """Five fields: minute, hour, day of month, month, day of week."""
    time_zone: str = "UTC"
    """An IANA name, for example `America/Los_Angeles`."""
    missed: Literal["skip", "run-once"] = "skip"
    """What becomes of firings at which nothing ran that could have started a training: nothing, or one training for all of them."""
    overlapping: Literal["skip", "run-once"] = "skip"
    """What becomes of a firing while a training goes on: nothing, or one training as soon as it may start."""


Signal = Literal["drift", "quality", "corrections", "calendar", "new-data", "new-code"]


class RetrainingBudget(Section):
    """How many trainings may be started by themselves."""

    runs: int = Field(default=7, ge=0)
    gpu_hours: float | None = Field(default=None, gt=0)
    """GPUs times hours that trainings may hold. A run that begins within it may go beyond it; then the next one waits. Not counted where not set."""
    days: float = Field(default=7.0, gt=0)
    """The time that both are about: the last so many days."""


class Retraining(Section):
    """When an alert, a date, new rows or new code may start a training."""

    signals: list[Signal] = ["drift", "quality", "corrections", "calendar", "new-data", "new-code"]
    """What may start one: `drift` of rows, falling `quality`, reviewers' `corrections`, the `calendar`, new rows, new code."""
    cooldown_hours: float = Field(default=6.0, ge=0)
    """Between two starts."""
    budget: RetrainingBudget = RetrainingBudget()
    min_new_labels: int = Field(default=0, ge=0)
    """Labelled rows that the last training had not seen, before drift, quality or corrections start another one."""
    stale_days: float | None = Field(default=None, gt=0)
    """Alarm when the model was not trained for so long. It starts nothing by itself: that is what `schedule` is for."""
    corrections: float | None = Field(default=None, gt=0, lt=1)
    """Reviewers disagree with the model when they would surely correct more than this share of its predictions. Not looked at where not set."""
    rollout: Literal["by-hand", "automatic"] = "by-hand"
    """What becomes of the blessed version of a training that the trigger started: it waits for `millrace rollout start`, or (`automatic`, on the
    track `canary`) the trigger starts its rollout and drives it to its end, by `deployment.rollout` and `deployment.approval`."""


class Notifications(Section):
    """Who hears of runs."""

    slack: str | None = None
    """A channel."""
    email: list[str] = []


class Project(Section):
    """One model that Millrace looks after."""

    name: str = Field(pattern=NAME, max_length=40)
    """Lower case, digits and hyphens."""
    team: str = Field(pattern=NAME)
    """Who owns it: decides namespace, quota and who is told."""
    description: str = ""
    task: Literal["classification", "multilabel", "detection", "similarity", "regression"]
    """What the model's outputs mean, and so which metrics there are. `detection` scores rare cases: outliers, fraud, matching pairs."""
    source: Source
    key: str | None = None
    """The column that identifies a row. Without one, a row is identified by its content."""
    time: str | None = None
    """The column that says when a row happened; of type `timestamp`."""
    features: dict[str, ColumnType] = Field(min_length=1)
    """The columns that the model may see, with their types. A column that is not named in this file never leaves the source."""
    context: dict[str, ColumnType] = {}
    """Columns that travel along for splits, slices and capacity, and are never a feature."""
    rename: dict[str, str] = {}
    """Our column name: the source's name, where they differ."""
    label: Label | None = None
    """What is learned. Only `detection` does without: it is then judged by planted rows (docs/reference/metrics.md)."""
    schema_file: str = "schema.pbtxt"
    """The reviewed schema, relative to the project folder."""
    split: Split = Split()
    validation: Validation = Validation()
    beam: Beam = Beam()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    deployment: Deployment = Deployment()
    monitor: Monitor = Monitor()
    review: ReviewSettings = ReviewSettings()
    resources: dict[Step, Resources] = {}
    """By step. `labels`, which only looks at files, asks for 100m and 512Mi unless its entry says otherwise."""
    schedule: Schedule | None = None
    retraining: Retraining = Retraining()
    notifications: Notifications = Notifications()

    @model_validator(mode="after")
    def _columns_exist(self) -> Project:
        known = self.column_types
        mentioned = {
            "split.group": self.split.group,
            "split.column": self.split.column,
            "split.stratify": self.split.stratify,
            "split.balance": self.split.balance,
            "evaluation.baseline.column": self.evaluation.baseline.column,
            **{f"evaluation.slices.{i}.column": s.column for i, s in enumerate(self.evaluation.slices)},
            **{f"monitor.slices.{i}": c for i, c in enumerate(self.monitor.slices)},
            **{f"split.near_duplicates.{i}": c for i, c in enumerate(self.split.near_duplicates)},
            **{f"source.images.{i}": c for i, c in enumerate(self.source.images)},
            **{f"split.validation_holds: {c}": c for c in self.split.validation_holds.columns},
        }
        for field, column in mentioned.items():
            if column is not None and column not in known:
                raise ValueError(f"{field} names the column {column!r}, which is neither a feature, context, key, time nor the label")
        if self.time is not None and known[self.time] != "timestamp":
            raise ValueError(f"time names {self.time!r}, whose type must be 'timestamp'")
        if self.split.by == "time" and self.time is None:
            raise ValueError("split by time needs 'time'")
        if self.source.incremental and self.time is None:
            raise ValueError("source.incremental needs 'time'")
        if self.source.lateness_hours and self.key is None:
            raise ValueError("source.lateness_hours needs 'key'")
        if self.evaluation.capacity and self.evaluation.capacity.per != "set" and self.time is None:
            raise ValueError("evaluation.capacity.per day or week needs 'time'")
        if self.task in ("classification", "multilabel", "regression", "similarity") and self.label is None:
            raise ValueError(f"the task {self.task!r} needs 'label'")
        if self.label is not None and self.label.column in self.features:
            raise ValueError(f"the label {self.label.column!r} is also a feature: the model would read the answer")
        return self

    @model_validator(mode="after")
    def _baseline_answers_as_the_task_does(self) -> Project:
        if self.evaluation.baseline.kind == "isolation_forest" and self.task != "detection":
            raise ValueError(f"evaluation.baseline.kind isolation_forest scores rows, which a project of task {self.task!r} does not")
        return self

    @model_validator(mode="after")
    def _images_are_bytes(self) -> Project:
        for column in self.source.images:
            if self.column_types[column] != "bytes":
                raise ValueError(f"source.images names {column!r}, whose type must be 'bytes'")
        return self

    @model_validator(mode="after")
    def _validation_set_can_be_checked(self) -> Project:
        holds = self.split.validation_holds
        if holds.like_newest and self.time is None:
            raise ValueError("split.validation_holds.like_newest needs 'time'")
        if holds.pairs is not None and (self.label is None or self.label.kind != "class"):
            raise ValueError("split.validation_holds.pairs needs a label of kind 'class'")
        return self

    @model_validator(mode="after")
    def _logged_features_exist(self) -> Project:
        unknown = [name for name in self.deployment.log.features if name not in self.features]
        if unknown:
            raise ValueError(f"deployment.log.features names {unknown[0]!r}, which is no feature")
        return self

    @model_validator(mode="after")
    def _predictions_can_be_explained(self) -> Project:
        explanations = self.deployment.explanations
        if explanations is None:
            return self
        if self.task == "similarity":
            raise ValueError(
                "deployment.explanations: an embedding is no single number that features could add up to; leave it out. "
                "A model may say itself why: docs/explanations.md"
            )
        for name, value in explanations.compare_with.items():
            kind = self.features.get(name)
            if kind is None:
                raise ValueError(f"deployment.explanations.compare_with names {name!r}, which is no feature")
            if value is None and kind in ("integer", "timestamp"):
                raise ValueError(f"deployment.explanations.compare_with.{name} is null, and {kind!r} features are never missing")
            if value is not None and not isinstance(value, _COMPARABLE.get(kind, ())):
                raise ValueError(
                    f"deployment.explanations.compare_with.{name} is {value!r}, which is no {kind}; write null for a missing one"
                )
        return self

    @model_validator(mode="after")
    def _somebody_is_there_to_roll_out_from(self) -> Project:
        if self.retraining.rollout == "automatic" and self.deployment.track != "canary":
            raise ValueError(
                "retraining.rollout: automatic needs deployment.track: canary; on the track 'stable' publishing makes a version the champion at once"
            )
        return self

    @property
    def column_types(self) -> dict[str, ColumnType]:
        """Every column that enters, by our name: features, context, then key, time and label where not named before."""
        columns: dict[str, ColumnType] = {**self.features, **self.context}
        if self.time is not None:
            columns.setdefault(self.time, "timestamp")
        if self.key is not None:
            columns.setdefault(self.key, "string")
        if self.label is not None:
            label_type: dict[str, ColumnType] = {"class": "string", "classes": "[string]", "flag": "string", "number": "float"}
            columns.setdefault(self.label.column, label_type[self.label.kind])
        return columns

    @property
    def model_name(self) -> str:
        """The name in the registry, in the model store and in requests."""
        return self.deployment.model or self.name

    def resources_of(self, step: Step) -> Resources:
        """What `step` asks for: its own entry, and the defaults for what that does not say."""
        asked = self.resources.get(step, Resources())
        little = _LITTLE if step == "labels" else {}
        return asked.model_copy(update={name: value for name, value in little.items() if name not in asked.model_fields_set})

    def scoped(self, step: Step) -> Project:
        """The project with every section that cannot change `step`'s outcome put back to its default."""
        neutral: dict[str, Any] = {
            name: Project.model_fields[name].get_default() for name in _OPTIONAL_SECTIONS if name not in _SECTIONS_READ[step]
        }
        if "source" not in _SECTIONS_READ[step]:
            neutral["source"] = _ALREADY_READ
        if step in ("labels", "ingest") and self.source.learn_from:  # whose predictions
            neutral["deployment"] = Deployment(model=self.deployment.model)
        if step == "train":  # what the exported model can be asked, and how many cases people look at
            neutral["deployment"] = Deployment(
                explanations=self.deployment.explanations, model=self.deployment.model if self.training.reuse else None
            )
            neutral["evaluation"] = Evaluation(capacity=self.evaluation.capacity)
            if self.evaluation.capacity is not None and self.split.by == "time":  # a day's cases are for the rows of that day's split
                neutral["split"] = Split(by="time")
        if step == "transform" and self.training.reuse:  # whose versions, and which
            neutral["deployment"] = Deployment(model=self.deployment.model)
            neutral["training"] = Training(reuse=self.training.reuse)
        return self.model_copy(update={**neutral, "description": ""})


_COMPARABLE: dict[str, type | tuple[type, ...]] = {"string": str, "float": (int, float), "integer": int, "timestamp": int}
"""What a feature's value in the row to compare with is written as; lists and `bytes` are compared with a missing one."""

_SECTIONS_READ: dict[str, tuple[str, ...]] = {
    "batch": ("source", "beam", "evaluation", "deployment"),
    "labels": ("source",),
    "ingest": ("source", "split"),
    "statistics": (),
    "validate": ("validation", "schema_file"),
    "transform": ("beam",),
    "train": ("training",),
    "evaluate": ("evaluation", "split", "deployment", "training"),
    "register": ("deployment", "training", "evaluation"),
    "publish": ("deployment", "monitor", "review", "validation", "evaluation"),
    "report": ("source", "split", "validation", "beam", "training", "evaluation", "deployment", "notifications"),
}
_OPTIONAL_SECTIONS = (
    "split",
    "validation",
    "beam",
    "training",
    "evaluation",
    "deployment",
    "monitor",
    "review",
    "resources",
    "schedule",
    "retraining",
    "notifications",
    "schema_file",
)

_LITTLE = {"cpu": "100m", "memory": "512Mi"}
"""For a step that reads no rows."""
_ALREADY_READ = Source(kind="parquet", path="(read by ingest)")
