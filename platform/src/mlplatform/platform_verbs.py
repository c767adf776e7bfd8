"""What `millrace platform` does, one function for each verb: wiring, and what is printed. `platform_command` reads the options."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from mlplatform.cluster.kubectl import Change, Cluster
from mlplatform.cluster.lock import Lock
from mlplatform.cluster.programs import Programs
from mlplatform.cluster.releases import Release
from mlplatform.cluster.rendering import Renderer, rendered
from mlplatform.contradictions import unready
from mlplatform.deploy import ground
from mlplatform.deploy.deploying import THEIRS, Deployment, Progress
from mlplatform.deploy.destroying import Destruction
from mlplatform.deploy.outlook import Outlook, outlooks, require_possible
from mlplatform.deploy.screen import DeployScreen, cut, what_goes
from mlplatform.environment import FOLDER, Environment, read_environment
from mlplatform.errors import ConfigError, Unavailable
from mlplatform.plan.order import plan
from mlplatform.plan.registry_rights import RegistryRights
from mlplatform.plan.report import ReleaseWay, as_json, report
from mlplatform.plan.steps import Step
from mlplatform.release import PlatformRelease, Way, arrived, read_release, require_pinned, under_way, way
from mlplatform.screen import console, plan_page


def _read(options: argparse.Namespace) -> tuple[Environment, tuple[Step, ...]]:
    given = Path(options.environment)
    file = given if given.suffix == ".yaml" else options.root / FOLDER / f"{given}.yaml"
    if not (options.root / "helm").is_dir():
        raise ConfigError(f"{options.root.resolve()} holds no helm/: go to the repository, or name it with --root")
    environment = read_environment(file)
    options.file, options.release = file, read_release(options.root)
    require_pinned(environment.versions.millrace, options.release, str(file))
    options.plan = plan(environment)
    names = [step.name for step in options.plan]
    if unknown := sorted(set(options.without) - set(names)):
        raise ConfigError(f"--without: no such step: {', '.join(unknown)}. There are: {', '.join(names)}")
    return environment, tuple(step for step in options.plan if step.name not in options.without)


def _deployment(options: argparse.Namespace, environment: Environment, progress: Progress) -> Deployment:
    cluster = Cluster(programs=Programs(context=options.context or ground.context(environment)))
    folder = options.file.parent / environment.secrets.folder
    theirs = getattr(options, "take_over", THEIRS)
    return Deployment(
        environment=environment,
        root=options.root,
        secrets=folder,
        cluster=cluster,
        progress=progress,
        theirs=theirs,
        registry=options.registry,
    )


def show_plan(options: argparse.Namespace) -> int:
    """Print what would be done, against what is there; returns 2 if the cluster would refuse any of it."""
    environment, steps = _read(options)
    drawn = console()
    found: dict[str, Outlook] = {}
    release = ReleaseWay(here=options.release.version)
    if options.offline:
        renderer = Renderer(root=options.root, kubernetes=environment.versions.kubernetes, offline=True)
    else:
        deployment = _deployment(options, environment, DeployScreen(drawn, len(steps)))
        ground.require(deployment.cluster, environment)
        there, renderer = ground.standing(deployment.cluster), deployment.renderer
        release = ReleaseWay(here=options.release.version, there=there, way=way(options.release, there, back=options.back))
        found = {one.step.name: one for one in outlooks(deployment, steps)}
    told = report(environment, list(rendered(renderer, steps)), {name: one.difference for name, one in found.items()}, release)
    if options.json:
        print(json.dumps(as_json(told), indent=1))
    else:
        drawn.print(plan_page(told))
    if options.diff:
        print("\n".join(one.change.text for one in found.values() if one.change.text))
    return ConfigError.exit_code if told.refused else 0


def deploy(options: argparse.Namespace) -> int:
    """Do it."""
    environment, steps = _read(options)
    if missing := list(unready(environment)):
        raise ConfigError(f"{options.file} is not ready to be deployed:\n  " + "\n  ".join(missing))
    deployment = _deployment(options, environment, DeployScreen(console(), len(steps)))
    ground.require(deployment.cluster, environment)
    ground.require_kubernetes(deployment.cluster, environment)
    there = ground.standing(deployment.cluster)
    way(options.release, there, back=options.back)
    if there.nothing:  # the lock needs its namespace
        ground.note(deployment.cluster, environment, under_way(options.release, there, _now()))
    with Lock(cluster=deployment.cluster).held():
        _run(options, deployment, steps)
        orphans = deployment.orphans(options.plan)
        for release in orphans if options.remove_orphans else []:
            print(f"removed  {_of_nobody(release)}; what it keeps, such as volumes, stays")
            deployment.releases.uninstall(release)
    _tell_orphans(environment, [] if options.remove_orphans else orphans)
    print(f"{environment.name} is ready. Look at it any time: make status-platform ENV={environment.name}")
    return 0


def _run(options: argparse.Namespace, deployment: Deployment, steps: Sequence[Step]) -> None:
    """All steps, from the release that is there to ours, which is noted before the first and after the last."""
    ours: PlatformRelease = options.release
    cluster, environment = deployment.cluster, deployment.environment
    there = ground.standing(cluster)
    how = way(ours, there, back=options.back)
    if how is not Way.INSTALL:
        require_possible(outlooks(deployment, steps), str(options.file))
    if how in {Way.UPGRADE, Way.BACK}:
        there = under_way(ours, there, _now())
        print(f"{how} from {there.version} to {ours.version}, under way since {there.since}")
        ground.note(cluster, environment, there)
    deployment.run(steps)
    done = {step.name for step in steps}
    omitted = [step for step in options.plan if step.name not in done]
    left = [step.name for step in omitted if step.name in there.left or (how in {Way.UPGRADE, Way.BACK} and deployment.is_there(step))]
    ground.note(cluster, environment, arrived(ours, there, _now(), tuple(left)))


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _tell_strangers(users: Sequence[str]) -> None:
    for user in users:
        print(
            f"    the registry knows {user}, whom the environment does not name: somebody made that account by hand, and it stays until somebody removes it"
        )


def _tell_orphans(environment: Environment, orphans: Sequence[Release]) -> None:
    for release in orphans:
        print(f"{_of_nobody(release)} is in no step any more. To remove it: millrace platform deploy {environment.name} --remove-orphans")


def _look(deployment: Deployment, step: Step) -> tuple[Change, list[str]]:
    """What differs, and the accounts of the registry that are nobody's."""
    if isinstance(step.source, RegistryRights):
        return deployment.registry_step(step.source).look()
    return deployment.change(step), []


def _amiss(step: Step, change: Change) -> list[str]:
    """What differs; of the registry one by one, for it has no objects that anybody could look at."""
    if change.nothing:
        return []
    said = [f"is {change}" if change.unknown else f"is not as it should be: {change}"]
    return [*said, *change.text.splitlines()] if isinstance(step.source, RegistryRights) else said


def _of_nobody(release: Release) -> str:
    return f"release {release.namespace}/{release.name}"


def status(options: argparse.Namespace) -> int:
    """Say what is unhealthy; returns 4 if anything is."""
    environment, steps = _read(options)
    deployment = _deployment(options, environment, DeployScreen(console(), len(steps)))
    ground.require(deployment.cluster, environment)
    there = ground.standing(deployment.cluster)
    print(f"{'release':<24} {there}")
    unhealthy = 0
    for step in steps:
        change, strangers = _look(deployment, step)
        trouble = [*deployment.trouble(step), *_amiss(step, change)]
        unhealthy += bool(trouble)
        print(f"{step.name:<24} {'healthy' if not trouble else 'NOT healthy'}")
        for line in cut(trouble):
            print(f"    {line}")
        _tell_strangers(strangers)
    _tell_orphans(environment, deployment.orphans(options.plan))
    if unhealthy:
        print(f"\n{unhealthy} of {len(steps)} steps are not healthy. To bring them back: make deploy-platform ENV={environment.name}")
    return Unavailable.exit_code if unhealthy else 0


def destroy(options: argparse.Namespace) -> int:
    """Ask, and take it away."""
    environment, _ = _read(options)
    cluster = Cluster(programs=Programs(context=options.context or ground.context(environment)))
    ground.require(cluster, environment)
    destruction = Destruction(
        environment=environment, cluster=cluster, root=options.root, say=lambda text: print(f"removed  {text}", flush=True)
    )
    inventory = destruction.inventory()
    if inventory.nothing and not ground.holder(cluster):
        print(f"Nothing of {environment.name} is in this cluster.")
        return 0
    print("\n".join(["This goes, and what it holds with it:", *(f"  {line}" for line in what_goes(inventory))]))
    try:
        typed = input(f"Type the environment's name to remove all of it ({environment.name}): ")
    except EOFError:
        typed = ""
    if typed.strip() != environment.name:
        raise ConfigError("That is not its name. Nothing was removed.")
    with Lock(cluster=cluster).held():
        destruction.destroy(destruction.inventory())
    return 0
