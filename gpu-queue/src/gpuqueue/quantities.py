"""How many GPUs a pod holds.

Kubernetes charges a pod for what its containers hold at the same time: the sum of its containers and sidecars, or more where one
init container asks for more than that on its way ("Sidecar containers", "Resource sharing within containers" in the Kubernetes
documentation). Extended resources such as GPUs are whole numbers and cannot be overcommitted: request and limit are the same.

Every unit of a resource below `nvidia.com/` counts as one GPU and every resource claim as one, unless a table says otherwise: what
nobody has thought of (a new MIG profile, a shared GPU) must not be a free ride.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PREFIX = "nvidia.com/"
CLAIM = "claim"
"""The table's name for a resource claim (dynamic resource allocation)."""
UNREADABLE = 10**9
"""What a quantity that cannot be read counts as: no quota holds it, and its pod is told so."""
_MOST_DIGITS = 40
"""Of more, Python makes an integer slowly or not at all; an annotation may hold a quarter of a million."""
_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

Spec = Mapping[str, Any]
"""A pod's `spec`, as JSON has it."""


def gpus_of(spec: Spec, table: Mapping[str, int] | None = None) -> int:
    """The GPUs that a pod with this `spec` holds while it runs.

    Args:
        spec: the pod's spec.
        table: GPUs for one unit of a resource (`{"nvidia.com/mig-1g.10gb": 0}` leaves it out), and of `CLAIM`.
    """
    weights = table or {}
    sidecars = peak = 0
    for container in _list(spec, "initContainers"):
        if container.get("restartPolicy") == "Always":
            sidecars += _asked(container, weights)
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + _asked(container, weights))
    together = sidecars + sum(_asked(container, weights) for container in _list(spec, "containers"))
    held = max(peak, together) + len(_list(spec, "resourceClaims")) * weights.get(CLAIM, 1)
    return min(held, UNREADABLE)  # sums of more do not fit into the API's integers: one such pod would keep the ledger from being written


def _list(spec: Spec, name: str) -> Sequence[Any]:
    found: Sequence[Any] = spec.get(name) or ()
    return found


def _asked(container: Mapping[str, Any], weights: Mapping[str, int]) -> int:
    resources = container.get("resources") or {}
    asked = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    return sum(whole(value) * weights.get(name, 1) for name, value in asked.items() if name.startswith(PREFIX))


def whole(quantity: object) -> int:
    """A whole Kubernetes quantity, such as `4`, `"4"` or `"1k"`; `UNREADABLE` where it is none."""
    text = str(quantity)
    digits = len(text) - len(text.lstrip("0123456789"))
    scale = _SUFFIXES.get(text[digits:])
    return int(text[:digits]) * scale if 0 < digits <= _MOST_DIGITS and scale is not None else UNREADABLE
