"""What a rollout needs from where it runs; `local` and `helm` are two places."""

from __future__ import annotations

from typing import Any, Protocol

from mlserving.rollout.document import Desired
from mlserving.rollout.observation import Observation
from mlserving.rollout.plan import Rollout


class Driver(Protocol):
    """Where what is wanted is written down, and who follows it."""

    def read(self, model: str) -> Desired:
        """What is wanted now.

        Raises:
            NotServed: the model is not served on tracks here.
            Unavailable: it cannot be read.
        """
        ...

    def write(self, desired: Desired) -> Desired:
        """Replace what is wanted, if it still is what was read (`desired.revision`). Returns it with its new revision.

        Raises:
            Conflict: somebody else has written since.
            Unavailable: it cannot be written.
        """
        ...

    def await_in_force(self, desired: Desired, seconds: float, /) -> None:
        """Return when every version that is wanted is loaded and requests are dealt by the weights.

        Raises:
            NobodyServes: whoever loads versions is not there now.
            Unavailable: they are not after so many seconds, or a version cannot be loaded.
        """
        ...

    def digest(self, model: str, version: int, /) -> str:
        """The digest of a published version; "" where its files are not at hand.

        Raises:
            ConfigError: the store is at hand and has no such version.
        """
        ...

    def newest(self, model: str, /) -> int | None:
        """The newest published version, where the store is at hand."""
        ...


class Source(Protocol):
    """Who counts requests."""

    def mark(self, rollout: Rollout) -> dict[str, Any]:
        """What is counted until now, as `observe` wants it back; it must fit into JSON.

        Raises:
            Unavailable: nobody answers.
        """
        ...

    def reaches(self, rollout: Rollout, seconds: float, /) -> bool:
        """Wait until every gateway knows a server of the canary's that it can ask; False if one does not after so many seconds.

        Raises:
            Unavailable: nobody answers.
        """
        ...

    def observe(self, rollout: Rollout, now: float, /) -> Observation:
        """Both tracks from `rollout.step_started`, where `rollout.baseline` was marked, until now.

        Raises:
            Unavailable: nobody answers.
        """
        ...
