"""Every name that we put on other people's objects, once."""

from __future__ import annotations

DOMAIN = "gpu-queue.dev"

MANAGED = f"{DOMAIN}/managed"
"""On a namespace, `true`: its GPU pods are queued. On a pod: the gate was set, and watches select by it."""
GATE = f"{DOMAIN}/quota"
"""The scheduling gate. While it is there, schedulers and node autoscalers do not see the pod."""
CONDITION = f"{DOMAIN}/Admitted"
"""The pod condition that says place, reason and expected start."""
GROUP = f"{DOMAIN}/group"
"""Pods with the same value in one namespace start together or not at all."""
GROUP_SIZE = f"{DOMAIN}/group-size"
"""How many pods the group has."""
RUN_LIMIT = f"{DOMAIN}/run-limit"
"""How long a pod says that it runs at most, for example `90m`; EASY order counts on it."""
