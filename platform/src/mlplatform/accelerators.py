"""Which GPUs a Google machine carries: what an environment file is held against before anything is asked of a cloud.

Kept by machine family, which is stable. Which zone has how many of them today is not kept: it changes weekly, and
`gcloud compute accelerator-types list --filter zone:REGION` knows.
"""

from __future__ import annotations

from collections.abc import Mapping

_ATTACHED = (1, 2, 4, 8)
"""N1 takes GPUs as an extra, in these numbers."""
_N1 = ("nvidia-tesla-t4", "nvidia-tesla-p4", "nvidia-tesla-v100", "nvidia-tesla-p100")

_BUILT_IN: Mapping[str, tuple[str, int]] = {
    **{f"g2-standard-{cores}": ("nvidia-l4", 1) for cores in (4, 8, 12, 16, 32)},
    "g2-standard-24": ("nvidia-l4", 2),
    "g2-standard-48": ("nvidia-l4", 4),
    "g2-standard-96": ("nvidia-l4", 8),
    **{f"a2-highgpu-{gpus}g": ("nvidia-tesla-a100", gpus) for gpus in (1, 2, 4, 8)},
    "a2-megagpu-16g": ("nvidia-tesla-a100", 16),
    **{f"a2-ultragpu-{gpus}g": ("nvidia-a100-80gb", gpus) for gpus in (1, 2, 4, 8)},
    **{f"a3-highgpu-{gpus}g": ("nvidia-h100-80gb", gpus) for gpus in (1, 2, 4, 8)},
    "a3-megagpu-8g": ("nvidia-h100-mega-80gb", 8),
    "a3-ultragpu-8g": ("nvidia-h200-141gb", 8),
}

TYPES = frozenset({*_N1, *(kind for kind, _ in _BUILT_IN.values())})
"""The GPU types that a node pool may name, as GKE's label `cloud.google.com/gke-accelerator` spells them."""


def misfit(machine: str, kind: str, count: int) -> str:
    """Why no machine of that type carries so many of that GPU; empty if it does."""
    if kind not in TYPES:
        return f"Google has no GPU type {kind!r}; it has {', '.join(sorted(TYPES))}"
    if machine.startswith("n1-"):
        return "" if kind in _N1 and count in _ATTACHED else f"{machine} takes 1, 2, 4 or 8 of {', '.join(_N1)}, not {count} × {kind}"
    if machine not in _BUILT_IN:
        return f"{machine} carries no GPU; {kind} comes with {', '.join(sorted(name for name, (k, _) in _BUILT_IN.items() if k == kind)) or 'n1-…'}"
    held, number = _BUILT_IN[machine]
    return "" if (held, number) == (kind, count) else f"{machine} carries {number} × {held}, not {count} × {kind}"


def built_in(machine: str) -> bool:
    """Whether that machine type comes with GPUs."""
    return machine in _BUILT_IN
