"""Causes that nobody posts: new rows, new code, reviewers who disagree. Found by comparing what is seen with what the last training was made from.

Each names the last training as its beginning, so one of them starts one run, and another one only after a model was trained anew. Pure but for
reading a project's files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mlpipelines.freshness import mark_of_files
from mlpipelines.own_code import mark_of_work
from mlpipelines.triggers.decide import Cause, Signal
from mlpipelines.triggers.facts import Look
from mlpipelines.triggers.starts import Training


class Watch:
    """Tells of what has changed, once it has stayed the same for two looks: rows that are being written, or code that is being typed, are not new yet."""

    def __init__(self, code: Callable[[], str]) -> None:
        """`code` says which Millrace runs the steps: on one machine, it may be replaced while we go on."""
        self._code = code
        self._seen: dict[str, tuple[str, str]] = {}

    def causes(self, look: Look) -> list[Cause]:
        """What a look gives cause to."""
        training, model = look.training, look.trained.project.model_name
        if training is None:  # the first training is a person's
            return []
        found = [cause for cause in [_disagreement(look, training)] if cause]
        marks = (
            mark_of_files(look.trained.project.source, look.trained.folder),
            mark_of_work(look.trained.project, look.trained.folder, self._code()),
        )
        if self._seen.get(model) == marks:
            found += _changes(model, training, *marks)
        self._seen[model] = marks
        return found


def _changes(model: str, training: Training, data: str, work: str) -> Iterator[Cause]:
    if data and training.data and data != training.data:
        yield Cause(
            model=model,
            signal=Signal.NEW_DATA,
            fingerprint=data,
            starts_at=training.at,
            summary="the source's files changed since the last training",
        )
    if training.work and work != training.work:
        yield Cause(
            model=model,
            signal=Signal.NEW_CODE,
            fingerprint=work,
            starts_at=training.at,
            summary="the project's code, its settings or Millrace changed since the last training",
        )


def _disagreement(look: Look, training: Training) -> Cause | None:
    limit, right = look.trained.project.retraining.corrections, look.right
    if limit is None or right is None or 1.0 - right.high <= limit:
        return None
    return Cause(
        model=look.trained.project.model_name,
        signal=Signal.CORRECTIONS,
        fingerprint="reviewers",
        starts_at=training.at,
        summary=f"reviewers find it wrong in {1 - right.value:.1%} of cases ({1 - right.high:.1%} at least, {right.n} reviewed); {limit:.1%} is allowed",
    )
