"""One deployment at a time: a Lease that whoever deploys holds and renews.

Who finds it held is told by whom and since when. A deployment that was killed leaves it behind; it ends by itself a minute after the last renewal,
and at once where the process was of the same machine and is gone.
"""

from __future__ import annotations

import getpass
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlplatform.cluster.kubectl import Cluster
from mlplatform.cluster.objects import Name
from mlplatform.errors import Conflict, PlatformError
from mlplatform.plan.steps import SYSTEM

LEASE = Name(api="coordination.k8s.io/v1", kind="Lease", namespace=SYSTEM, name="deployment")
SECONDS = 60
_RENEW = SECONDS / 4


def myself() -> str:
    """Who deploys: person, machine and process."""
    return f"{os.environ.get('MILLRACE_USER') or getpass.getuser()}@{socket.gethostname()} process {os.getpid()}"


@dataclass(slots=True)
class Lock:
    """Held while the body of `with lock.held():` runs."""

    cluster: Cluster
    holder: str = field(default_factory=myself)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises `Conflict` where somebody else deploys."""
        self._take()
        over = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(over,), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            over.set()
            renewing.join(_RENEW)
            self._give_back()

    def _take(self) -> None:
        for _ in range(3):
            if self.cluster.create(_lease(self.holder)):
                return
            there = self.cluster.get(LEASE)
            if there is None:
                continue
            if not is_free(there, datetime.now(UTC), alive=_alive):
                raise Conflict(refusal(there, datetime.now(UTC)))
            if self.cluster.replace(_lease(self.holder, over=there)):
                return
        raise Conflict("Several people begin to deploy in this moment. Agree who does, and type the same command again.")

    def _renew(self, over: threading.Event) -> None:
        while not over.wait(_RENEW):
            try:
                there = self.cluster.get(LEASE)
                if there is not None and there["spec"].get("holderIdentity") == self.holder:
                    self.cluster.replace(_lease(self.holder, over=there, since=there["spec"].get("acquireTime")))
            except PlatformError:  # the next renewal may get through; a minute without any lets another begin
                continue

    def _give_back(self) -> None:
        there = self.cluster.get(LEASE)
        if there is not None and there["spec"].get("holderIdentity") == self.holder:
            self.cluster.delete(LEASE)


def is_free(lease: Mapping[str, Any], now: datetime, *, alive: Any = lambda _: True) -> bool:
    """Whether nobody holds it any more; `alive` says whether a holder's process of this machine lives."""
    spec = lease["spec"]
    renewed = _moment(spec["renewTime"])
    return (now - renewed).total_seconds() > int(spec.get("leaseDurationSeconds", SECONDS)) or not alive(
        str(spec.get("holderIdentity", ""))
    )


def refusal(lease: Mapping[str, Any], now: datetime) -> str:
    """What somebody is told who finds it held."""
    spec = lease["spec"]
    since, renewed = _moment(spec["acquireTime"]), _moment(spec["renewTime"])
    age = round((now - renewed).total_seconds())
    return (
        f"{spec['holderIdentity']} deploys to this cluster since {since:%H:%M:%S} UTC and was heard {age} s ago. Ask, or wait until it has ended. "
        f"If it was killed, the lock ends {max(0, SECONDS - age)} s from now; then type the same command again."
    )


def _alive(holder: str) -> bool:
    """False only for a process of this machine that is gone."""
    who, _, number = holder.partition(" process ")
    if who.rpartition("@")[2] != socket.gethostname() or not number.isdigit():
        return True
    return Path(f"/proc/{number}").exists()


def _lease(holder: str, *, over: Mapping[str, Any] | None = None, since: str | None = None) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    about: dict[str, Any] = {"name": LEASE.name, "namespace": LEASE.namespace}
    if over is not None:
        about["resourceVersion"] = over["metadata"]["resourceVersion"]
    spec = {"holderIdentity": holder, "leaseDurationSeconds": SECONDS, "acquireTime": since or now, "renewTime": now}
    return {"apiVersion": LEASE.api, "kind": LEASE.kind, "metadata": about, "spec": spec}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
