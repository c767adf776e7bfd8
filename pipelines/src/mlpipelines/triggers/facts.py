"""What is known of each model when a cause comes in: looked up beforehand, again and again, so that a decision waits for nobody.

Open runs, the last training, labels that came since, what reviewers said. A message of Alertmanager is answered from the last look. A look that
failed leaves the one before; when that is too old nothing is decided, for what is not known is not "nothing".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from mlpipelines.errors import ConfigError, Unavailable
from mlpipelines.triggers.ledger import Facts, Ledger
from mlpipelines.triggers.projects import Projects, Trained
from mlpipelines.triggers.starts import Runs, Training
from mlserving.errors import Unavailable as StoreUnavailable
from mlserving.review.agreement import Share

OLDEST = 300.0
"""Seconds after which a look counts no longer."""
MOST_LABELS = 100_000
"""Beyond that they are not counted on."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen of one model."""

    at: float
    trained: Trained
    open_run: str
    training: Training | None
    new_labels: int
    right: Share | None
    """How often reviewers found the model right on what was predicted since it was trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where it is looked up."""

    projects: Projects
    runs: Runs
    ledger: Ledger
    labels: Callable[[str, float | None, int], int]
    """The labels of a model that were received since a time, counted up to a number."""
    reviews: Callable[[str, float], Share | None] = lambda _model, _since: None
    """How often reviewers found the model right since a time."""


class Known:
    """The last look at each model. May be shared by threads: one looks, others ask."""

    def __init__(self, sources: Sources, clock: Callable[[], float] = time.time) -> None:
        self._sources, self._clock = sources, clock
        self._looks: dict[str, Look] = {}
        self.troubles: dict[str, str] = {}
        """By model, why the last look at it failed."""

    def look(self) -> Mapping[str, Look]:
        """Look at every model anew; what was seen, where that worked."""
        try:
            models = self._sources.projects.models()
        except ConfigError as error:  # one file is wrong: the others go on as they were
            self._troubled("", error)
            models = list(self._looks)
        else:
            self.troubles.pop("", None)
            for gone in (self._looks.keys() | self.troubles.keys()) - set(models):  # nobody trains it any more
                self._looks.pop(gone, None)
                self.troubles.pop(gone, None)
        for model in models:
            try:
                self.look_at(model)
            except (Unavailable, StoreUnavailable, ConfigError) as error:
                self._troubled(model, error)
        return dict(self._looks)

    def look_at(self, model: str) -> Look:
        """Look at one model anew.

        Raises:
            Unavailable: somebody who was asked does not answer.
            ConfigError: nobody trains it, or a project cannot be read.
        """
        sources = self._sources
        trained = sources.projects.require(model)
        training = sources.runs.last_trained(model)
        ours = {run.name for run in sources.ledger.runs(model)}
        look = Look(
            at=self._clock(),
            trained=trained,
            open_run=sources.runs.open_run(model, ours),
            training=training,
            new_labels=sources.labels(model, training.at if training else None, MOST_LABELS),
            right=sources.reviews(model, training.at) if training else None,
        )
        self._looks[model] = look
        self.troubles.pop(model, None)
        return look

    def facts(self, model: str) -> Facts:
        """What the ledger is told of a model.

        Raises:
            Unavailable: the last look is too old.
        """
        look = self._looks.get(model)
        if look is None:
            return self._of_an_unseen(model)
        age = self._clock() - look.at
        if age > OLDEST:
            why = self.troubles.get(model) or self.troubles.get("", "nobody looks")
            raise Unavailable(f"What is known of {model} is {age:.0f} s old: {why}")
        return Facts(policy=look.trained.policy, open_run=look.open_run, new_labels=look.new_labels)

    def _of_an_unseen(self, model: str) -> Facts:
        """Nobody trains it; or it was added a moment ago, or the first look at it failed."""
        if model in self.troubles or "" in self.troubles:
            raise Unavailable(f"Nothing is known of {model} yet: {self.troubles.get(model) or self.troubles['']}")
        try:
            known = self._sources.projects.named(model)
        except ConfigError as error:
            raise Unavailable(str(error)) from error
        if known is None:
            return Facts(policy=None)
        raise Unavailable(f"{model} is new here and will be looked at in a moment. Try again.")

    def _troubled(self, model: str, error: Exception) -> None:
        if self.troubles.get(model) != str(error):
            log.warning("trigger.look_failed", model=model, error=str(error))
        self.troubles[model] = str(error)


def count_labels(predictions: Path, model: str, since: float | None, most: int) -> int:
    """Different predictions of a model for which a label was received since a time, counted up to `most`.

    Raises:
        Unavailable: files are merged under way all the time.
    """
    if not predictions.is_dir():
        return 0
    from mlserving.predictions.files import Window
    from mlserving.predictions.reading import labels

    start = None if since is None else datetime.fromtimestamp(since, UTC)
    seen: set[tuple[str, int]] = set()
    for batch in labels(predictions, model, Window(start=start)):
        seen.update(zip(batch["prediction_id"].to_pylist(), batch["row"].to_pylist(), strict=True))
        if len(seen) >= most:
            return most
    return len(seen)
