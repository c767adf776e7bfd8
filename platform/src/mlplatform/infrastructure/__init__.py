"""The Google Cloud side of a platform, seen from outside: what would be made (`offline`), what must never be (`policies`), what only people do (`by_hand`),
and Pulumi itself (`program`).

The program that Pulumi runs is in `platform/gke/`. Nothing here imports Pulumi: whoever plans offline starts a child that does.
"""

from mlplatform.infrastructure.offline import Resource, listing, resources, resources_of
from mlplatform.infrastructure.policies import refuse, violations

__all__ = ["Resource", "listing", "refuse", "resources", "resources_of", "violations"]
