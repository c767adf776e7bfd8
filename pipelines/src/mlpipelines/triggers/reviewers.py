"""What reviewers said of a model, where its project wants to be trained again when they disagree with it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property

from mlpipelines.triggers.projects import Projects
from mlserving.review.agreement import Share
from mlserving.review.figures import right_since
from mlserving.review.tables import Database


class Reviewers:
    """The review queue in the platform's database. Its tables are touched only for projects that ask."""

    def __init__(self, projects: Projects, address: str) -> None:
        self._projects, self._address = projects, address

    def right_since(self, model: str, since: float) -> Share | None:
        """How often they found the model right on what was predicted since a time; None where nobody asks or nobody has reviewed.

        Raises:
            Unavailable: the database does not answer.
        """
        trained = self._projects.named(model)
        if trained is None or trained.project.retraining.corrections is None:
            return None
        return right_since(self._database, model, datetime.fromtimestamp(since, UTC))

    @cached_property
    def _database(self) -> Database:
        return Database(self._address)
