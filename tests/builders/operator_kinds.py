"""The Prometheus operator's kinds, and what it makes of an AlertmanagerConfig; the operator itself runs nowhere here.

The kinds are those that its release brings, read from the Go module that `tools/prometheus-operator` pins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import binaries

KINDS = {"AlertmanagerConfig": "alertmanagerconfigs", "PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"}
"""Those that our charts render."""
MODULE = "github.com/prometheus-operator/prometheus-operator"


class _Loader(yaml.SafeLoader):
    """`=` is a word, and not YAML 1.1's default value."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda _loader, node: node.value)


def definitions() -> list[dict[str, Any]]:
    """Their CustomResourceDefinitions.

    Raises:
        binaries.ToolsMissing: the module is not to be had.
    """
    folder: Path = binaries.source("prometheus-operator", MODULE) / "example" / "prometheus-operator-crd"
    files = [folder / f"monitoring.coreos.com_{plural}.yaml" for plural in KINDS.values()]
    return [yaml.load(file.read_text(), _Loader) for file in files]


def joined(base: Mapping[str, Any], objects: Sequence[Mapping[str, Any]], secrets: Mapping[str, str]) -> dict[str, Any]:
    """Alertmanager's configuration as the operator writes it (its `pkg/alertmanager/amcfg.go`, strategy OnNamespace).

    Each object's route comes before those of `base`, matches its own namespace only, and continues; receivers get the object's name.
    """
    routes, receivers = [], []
    for each in objects:
        namespace, prefix = each["metadata"]["namespace"], f"{each['metadata']['namespace']}/{each['metadata']['name']}"
        route = dict(each["spec"]["route"])
        matchers = [f'{said["name"]}{said["matchType"]}"{said["value"]}"' for said in route.pop("matchers")]
        route |= {"matchers": [*matchers, f'namespace="{namespace}"'], "continue": True, "receiver": f"{prefix}/{route['receiver']}"}
        routes.append({_snake(name): value for name, value in route.items()})
        receivers += [_receiver(said, prefix, secrets) for said in each["spec"]["receivers"]]
    root = {**base["route"], "routes": [*routes, *base["route"].get("routes", [])]}
    return {"route": root, "receivers": [*base["receivers"], *receivers]}


def _receiver(said: Mapping[str, Any], prefix: str, secrets: Mapping[str, str]) -> dict[str, Any]:
    hooks = []
    for hook in said["webhookConfigs"]:
        selector = hook["httpConfig"]["authorization"]["credentials"]
        http = {"authorization": {"credentials": secrets[selector["name"]]}}
        hooks.append({"url": hook["url"], "max_alerts": hook["maxAlerts"], "http_config": http})
    return {"name": f"{prefix}/{said['name']}", "webhook_configs": hooks}


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
