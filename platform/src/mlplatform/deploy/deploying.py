"""`make deploy-platform`: each step in its order, only where something differs, and not on before it is ready.

There is no state beside the cluster: a deployment that was interrupted, whenever and however, is gone on with by typing the command again.
Steps that are as they should be are passed by. `outlook` asks beforehand what all of it would do, and whether it may.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from mlplatform.cluster.credential_files import CredentialFiles
from mlplatform.cluster.kubectl import Change, Cluster, Writing
from mlplatform.cluster.objects import WITH_PODS, Name, Object
from mlplatform.cluster.releases import HELM, Release, Releases
from mlplatform.cluster.rendering import Renderer, shape
from mlplatform.deploy.applied import Applied
from mlplatform.deploy.readiness import Verdict, pod_trouble, verdicts
from mlplatform.deploy.registry_step import RegistryStep
from mlplatform.environment import Environment
from mlplatform.errors import ConfigError, Unavailable
from mlplatform.plan.registry_rights import RegistryRights
from mlplatform.plan.steps import Chart, Manifests, RemoteChart, SecretObject, Secrets, Step

_LOOK = 1.0
"""Seconds between two looks at what is not ready."""
THEIRS = 120
"""Seconds for which an operation of helm that has not ended may be somebody's who is at it."""


class Progress(Protocol):
    """Who is told what happens."""

    def begin(self, step: Step) -> None:
        """A step is looked at."""

    def change(self, change: Change) -> None:
        """What it will change."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def waiting(self, trouble: Sequence[str]) -> None:
        """What is not ready yet."""

    def end(self, *, changed: bool) -> None:
        """It is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Of one environment to one cluster.

    Args:
        environment: what is wanted.
        root: the repository.
        secrets: the folder that the environment's credentials lie in, if they lie in files.
        cluster: where.
        progress: who is told.
        theirs: seconds for which an operation of helm that has not ended is somebody's.
        registry: the registry's address, where it is not reached by kubectl's port-forward.
    """

    environment: Environment
    root: Path
    secrets: Path
    cluster: Cluster
    progress: Progress
    theirs: float = THEIRS
    registry: str = ""
    renderer: Renderer = field(init=False)
    releases: Releases = field(init=False)

    def __post_init__(self) -> None:
        """Wiring."""
        renderer = Renderer(root=self.root, kubernetes=self.environment.versions.kubernetes, programs=self.cluster.programs)
        object.__setattr__(self, "renderer", renderer)
        object.__setattr__(self, "releases", Releases(cluster=self.cluster, environment=self.environment.name, root=self.root))

    def run(self, steps: Sequence[Step]) -> None:
        """All of them.

        Raises:
            Unavailable: something is not ready in time, or a program failed; nothing is lost, and the next run goes on.
            ConfigError: a credential or a right is missing.
        """
        for step in steps:
            self.progress.begin(step)
            changed = self._step(step)
            self._await(step)
            self.progress.end(changed=changed)

    def orphans(self, steps: Sequence[Step]) -> list[Release]:
        """Releases that carry the environment's label and belong to no step of its whole plan: of a team or a model that it has no more."""
        wanted = {(step.source.namespace, step.source.release) for step in steps if isinstance(step.source, Chart | RemoteChart)}
        return [release for release in self.releases.all(ours=True) if (release.namespace, release.name) not in wanted]

    def change(self, step: Step) -> Change:
        """What a step would change. Nothing is written, here or there: credentials that would be made by chance count as new."""
        if isinstance(step.source, Secrets) and not self._known(step.source):
            return Change(new=tuple(self.wanted(step)))
        if isinstance(step.source, RegistryRights):
            return self.registry_step(step.source).look()[0]
        return self.change_by(self.writings(step, self.release(step)))

    def change_by(self, writings: Sequence[Writing]) -> Change:
        """What these would change."""
        found = Change()
        for writing in writings:
            found += self.cluster.change(writing.things, manager=writing.manager, before=writing.before)
        return found

    def release(self, step: Step) -> Release | None:
        """That of a step's chart, if there is one."""
        return self.releases.find(step.source) if isinstance(step.source, Chart | RemoteChart) else None

    def writings(self, step: Step, release: Release | None) -> list[Writing]:
        """What a step, whose release that is, would write; nothing where that is not known yet."""
        match step.source:
            case Chart() | RemoteChart() as chart:
                chart = self._going_on(chart, release)
                kinds = self._kinds(chart)
                return [*([self._applied(step).writing(kinds)] if kinds else []), self._helms(step, chart, release)]
            case Secrets() as secrets if not self._known(secrets):
                return []
            case RegistryRights():
                return []  # nothing of the cluster's
            case _:
                return [self._applied(step).writing(self._objects(step))]

    def is_there(self, step: Step) -> bool:
        """Whether anything of a step has ever been deployed."""
        match step.source:
            case Chart() | RemoteChart():
                return self.release(step) is not None
            case RegistryRights() as rights:
                return self.registry_step(rights).is_there()
            case _:
                return bool(self._applied(step).names())

    def wanted(self, step: Step) -> list[Name]:
        """What it makes."""
        if isinstance(step.source, Secrets):
            return [Name.of(shape(each)) for each in step.source.objects]
        return [Name.of(thing) for thing in self.renderer.objects(step) or []]

    def trouble(self, step: Step) -> list[str]:
        """What of it is not ready, and why: the objects, then the pods behind them."""
        return self._trouble(self.wanted(step))

    def registry_step(self, rights: RegistryRights) -> RegistryStep:
        """The step of those rights, to ask the registry itself."""
        return RegistryStep(cluster=self.cluster, rights=rights, address=self.registry)

    # -- one step ---------------------------------------------------------------------------------------------------------

    def _step(self, step: Step) -> bool:
        match step.source:
            case Chart() | RemoteChart() as chart:
                return self._release(step, chart)
            case RegistryRights() as rights:
                change = self.registry_step(rights).bring(step.patience)
                if not change.nothing:
                    self.progress.change(change)
                return not change.nothing
            case _:
                things, applied = self._objects(step), self._applied(step)
                change = self.change_by([applied.writing(things)])
                if not change.nothing:
                    self.progress.change(change)
                    applied.apply(things)
                return not change.nothing

    def _objects(self, step: Step) -> list[Object]:
        match step.source:
            case Secrets() as secrets if secrets.made_here:
                values = self._credentials.values(secrets.objects)
                return [_filled(each, values) for each in secrets.objects]
            case Secrets() as secrets:
                self._look_for(secrets)
                return []
            case Manifests():
                return self.renderer.objects(step) or []
            case _:
                raise AssertionError(step.name)

    def _look_for(self, secrets: Secrets) -> None:
        missing = []
        for each in secrets.objects:
            there = self.cluster.get(Name.of(shape(each)))
            keys = set(each.data) - set((there or {}).get("data", {}))
            missing += [f"{each.namespace}/{each.name}: {', '.join(sorted(keys))}"] if keys else []
        if missing:
            raise ConfigError(
                "Secrets that somebody else makes are not there:\n  "
                + "\n  ".join(missing)
                + "\nMake them, then type the same command again."
            )

    def _release(self, step: Step, chart: Chart | RemoteChart) -> bool:
        release = self.releases.find(chart)
        if release is not None and release.unfinished:
            self._mend(chart, release)
            release = self.releases.find(chart)
        chart = self._going_on(chart, release)
        kinds, applied = self._kinds(chart), self._applied(step)
        of_kinds = self.change_by([applied.writing(kinds)] if kinds else [])
        change = of_kinds + self.change_by([self._helms(step, chart, release)])
        if change.nothing and release is not None and release.status == "deployed":
            return False
        self.progress.change(change)
        if kinds:
            if not of_kinds.nothing:
                applied.apply(kinds)
            self._await(step, only=[Name.of(kind) for kind in kinds])
        self.releases.upgrade(chart, step=step.name, seconds=step.patience)
        return True

    def _going_on(self, chart: Chart | RemoteChart, release: Release | None) -> Chart | RemoteChart:
        """The chart as it would be deployed over its release."""
        return self.releases.kept(chart) if isinstance(chart, Chart) and release is not None else chart

    def _kinds(self, chart: Chart | RemoteChart) -> list[Object]:
        """What of a chart is ours to write."""
        return self.renderer.kinds(chart) if isinstance(chart, Chart) else []

    def _helms(self, step: Step, chart: Chart | RemoteChart, release: Release | None) -> Writing:
        """What of it is helm's."""
        things = self.renderer.templates(chart) if isinstance(chart, Chart) else self.renderer.objects(step) or []
        before = self.releases.objects(release) if release is not None and release.status == "deployed" else []
        return Writing(things=[_helmed(thing, chart) for thing in things], manager=HELM, before=before)

    def _mend(self, chart: Chart | RemoteChart, release: Release) -> None:
        """An operation has begun and not ended: somebody is at it, or somebody was killed."""
        while release.unfinished and (age := (datetime.now(UTC) - release.updated).total_seconds()) < self.theirs:
            self.progress.waiting([f"the release {release.name} is {release.status} since {age:.0f} s; somebody may be at it"])
            time.sleep(_LOOK)
            release = self.releases.find(chart) or release
        if release.unfinished:
            self.progress.note(
                f"{release.name} was {release.status} since {release.updated:%H:%M:%S} UTC and nobody ended it; its record goes, and what it wrote stays"
            )
            self.releases.forget_unfinished(release)

    def _await(self, step: Step, *, only: Sequence[Name] = ()) -> None:
        deadline = time.monotonic() + step.patience
        wanted = list(only) or self.wanted(step)
        while trouble := self._trouble(wanted):
            self.progress.waiting(trouble)
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{step.name} is not ready after {step.patience} s:\n  " + "\n  ".join(trouble) + "\n"
                    f"What is done stays. Look: make status-platform ENV={self.environment.name}; then type the same command again."
                )
            time.sleep(_LOOK)

    def _trouble(self, wanted: Sequence[Name]) -> list[str]:
        live = self.cluster.live([_bare(name) for name in wanted])
        bad = [one for one in verdicts(wanted, live) if not one.ready]
        return [*(f"{one.name.shown} {one.why}" for one in bad), *self._pods(bad)]

    def _pods(self, bad: Sequence[Verdict]) -> list[str]:
        places = sorted({one.name.namespace for one in bad if one.name.kind in WITH_PODS})
        pods = [pod for namespace in places for pod in self.cluster.list("pods", namespace=namespace)]
        return [f"Pod {pod['metadata']['namespace']}/{pod['metadata']['name']} {why}" for pod in pods if (why := pod_trouble(pod))]

    def _known(self, secrets: Secrets) -> bool:
        """Whether every value of theirs is there already, or is nobody's business here."""
        return not secrets.made_here or self._credentials.complete(secrets.objects)

    @property
    def _credentials(self) -> CredentialFiles:
        return CredentialFiles(folder=self.secrets, generate=self.environment.secrets.generate)

    def _applied(self, step: Step) -> Applied:
        return Applied(cluster=self.cluster, environment=self.environment.name, step=step.name)


def _filled(secret: SecretObject, values: dict[str, str]) -> Object:
    return shape(secret, {variable: values[credential.name] for variable, credential in secret.sources.items()})


def _bare(name: Name) -> Object:
    about = {"name": name.name, **({"namespace": name.namespace} if name.namespace else {})}
    return {"apiVersion": name.api, "kind": name.kind, "metadata": about}


def _helmed(thing: Object, chart: Chart | RemoteChart) -> Object:
    """The object as helm writes it: with the marks of its release."""
    about = thing["metadata"]
    annotations = {
        **(about.get("annotations") or {}),
        "meta.helm.sh/release-name": chart.release,
        "meta.helm.sh/release-namespace": chart.namespace,
    }
    labels = {**(about.get("labels") or {}), "app.kubernetes.io/managed-by": "Helm"}
    return {**thing, "metadata": {**about, "annotations": annotations, "labels": labels}}
