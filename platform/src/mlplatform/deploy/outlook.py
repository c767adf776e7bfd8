"""What a deployment would do, asked of the API server before the first write: what changes, which pods start anew, what it would refuse, which data would go.

A dry run knows every field that cannot be changed in place (the claims of a StatefulSet, selectors, templates of Jobs, the size of a volume, a version of
a kind that objects are stored in) and every guard, so we keep no list of them. What it does not know is that a thing which is no longer wanted holds data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mlplatform.cluster.kubectl import Change, Writing
from mlplatform.cluster.objects import WITH_PODS, Name, Object, kept
from mlplatform.cluster.programs import PlatformFailure
from mlplatform.cluster.releases import HELM, Release
from mlplatform.deploy.deploying import Deployment
from mlplatform.errors import ConfigError
from mlplatform.plan.report import Difference, refusals
from mlplatform.plan.steps import Chart, RemoteChart, Step

WITH_DATA = frozenset({"CustomResourceDefinition", "GpuQueue", "Namespace", "PersistentVolumeClaim", "StatefulSet"})
"""Kinds that hold data, or whose going takes along what does."""
_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """On one step."""

    step: Step
    change: Change
    difference: Difference


def outlooks(deployment: Deployment, steps: Iterable[Step]) -> list[Outlook]:
    """On each of them, several at a time: nothing is written, and most of it is waiting for answers."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda step: outlook(deployment, step), steps))


def outlook(deployment: Deployment, step: Step) -> Outlook:
    """On that step."""
    release = deployment.release(step)
    writings, charts = deployment.writings(step, release), _charts(deployment, step, release)
    try:
        change = deployment.change_by(writings) if writings else deployment.change(step)
    except PlatformFailure as error:
        refused = [text for writing in writings for text in _refused(deployment, writing)]
        difference = Difference(words="refused", charts=charts, refused=tuple(refused) or (error.said,))
        return Outlook(step=step, change=Change(), difference=difference)
    lost = [text for writing in writings for text in _lost(deployment, writing, set(change.gone))]
    restarts = [text for writing in writings for text in _restarts(deployment, writing)] if change.changed else []
    difference = Difference(words=str(change), charts=charts, restarts=tuple(restarts), refused=tuple(lost))
    return Outlook(step=step, change=change, difference=difference)


def require_possible(found: Iterable[Outlook], file: str) -> None:
    """That nothing of it is refused.

    Raises:
        ConfigError: something is; all of it is named.
    """
    if refused := refusals({one.step.name: one.difference for one in found}):
        raise ConfigError(
            f"{file} cannot be deployed as it stands, and nothing was written:\n  "
            + "\n  ".join(refused)
            + "\nWhat cannot be changed in place, and what to do instead: docs/platform.md. Then type the same command again."
        )


def _charts(deployment: Deployment, step: Step, release: Release | None) -> tuple[str, str]:
    if not isinstance(step.source, Chart | RemoteChart):
        return "", ""
    return release.chart if release else "", deployment.renderer.version(step.source)


def _refused(deployment: Deployment, writing: Writing) -> Iterator[str]:
    """Asked one by one, for together the first refusal hides the others."""
    for thing in writing.things:
        try:
            deployment.cluster.change([thing], manager=writing.manager)
        except PlatformFailure as error:
            yield f"{Name.of(thing).shown}: {error.said}"


def _lost(deployment: Deployment, writing: Writing, gone: set[Name]) -> Iterator[str]:
    for name in writing.before:
        if name not in gone or name.kind not in WITH_DATA or (there := deployment.cluster.get(name)) is None:
            continue
        if writing.manager == HELM and kept(there):
            continue
        yield f"{name.shown}: would be deleted, with the data in it. Save what is needed and take it away yourself: kubectl delete {name.typed}"


def _restarts(deployment: Deployment, writing: Writing) -> list[str]:
    live = deployment.cluster.live([thing for thing in writing.things if thing["kind"] in WITH_PODS])
    known = [thing for thing in writing.things if Name.of(thing) in live]
    return list(restarted(live, deployment.cluster.foreseen(known, manager=writing.manager)))


def restarted(live: Mapping[Name, Object], foreseen: Mapping[Name, Object]) -> Iterator[str]:
    """Whose pods start anew, and how many: those whose template will be another."""
    for name, after in foreseen.items():
        before = live[name]
        if after["spec"]["template"] != before["spec"]["template"]:
            pods = before["spec"].get("replicas")
            yield f"{name.shown} ({pods} {'pod' if pods == 1 else 'pods'})" if pods is not None else name.shown
