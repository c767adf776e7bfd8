"""What a person sees while a platform is deployed, and of its health. On a terminal a line tells what is waited for; into a file each step is a line."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.status import Status
from rich.text import Text

from mlplatform.cluster.kubectl import Change
from mlplatform.deploy.destroying import Inventory
from mlplatform.plan.steps import Step

_SHOWN = 12
"""Lines of a list before it is cut."""


class DeployScreen:
    """See `deploying.Progress`."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console, self._steps, self._number = console, steps, 0
        self._started = 0.0
        self._told: Sequence[str] = ()
        self._status: Status | None = None

    def begin(self, step: Step) -> None:
        """See `Progress`."""
        self._number, self._started, self._told = self._number + 1, time.monotonic(), ()
        self._name = step.name
        if self._console.is_terminal:
            self._status = self._console.status(f"{self._head()}: looking")
            self._status.start()

    def change(self, change: Change) -> None:
        """See `Progress`."""
        self._console.print(Text.assemble((self._head(), "bold"), f"  {change}"))
        names = [
            *(f"+ {name.shown}" for name in change.new),
            *(f"~ {text}" for text in change.changed),
            *(f"- {n.shown}" for n in change.gone),
        ]
        for line in cut(names):
            self._console.print(Text(f"        {line}", style="dim"))

    def note(self, text: str) -> None:
        """See `Progress`."""
        self._console.print(Text(f"        {text}", style="yellow"))

    def waiting(self, trouble: Sequence[str]) -> None:
        """See `Progress`."""
        what = trouble[0] + (f" and {len(trouble) - 1} more" if len(trouble) > 1 else "")
        if self._status is not None:
            self._status.update(f"{self._head()}: {what}")
        elif set(trouble) != set(self._told):
            self._console.print(Text(f"        waiting: {what}", style="dim"))
        self._told = trouble

    def end(self, *, changed: bool) -> None:
        """See `Progress`."""
        if self._status is not None:
            self._status.stop()
        seconds = time.monotonic() - self._started
        said = f"ready after {seconds:.0f} s" if changed else "as it should be"
        self._console.print(Text.assemble((self._head(), "bold"), f"  {said}"))

    def _head(self) -> str:
        return f"[{self._number:>2}/{self._steps}] {self._name}"


def cut(lines: Sequence[str]) -> list[str]:
    """The first of them, and how many more there are."""
    return [*lines[:_SHOWN], *([f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])]


def what_goes(inventory: Inventory) -> Iterable[str]:
    """What destroying would remove, for people."""
    for release in inventory.releases:
        yield f"release     {release.namespace}/{release.name}"
    for name in inventory.kept:
        yield f"with data   {name.shown}"
    for step, names in inventory.applied:
        yield f"step        {step}: {len(names)} objects"
