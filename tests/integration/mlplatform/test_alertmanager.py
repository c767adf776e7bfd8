"""A real Alertmanager reads the configuration that an environment becomes, with everything in it that people can be told by."""

from __future__ import annotations

import shutil
import urllib.request
from pathlib import Path

import pytest
import yaml

import binaries
from alertmanager_server import AlertmanagerServer
from control_plane import free_ports
from mlplatform.environment import Environment, read_environment
from mlplatform.plan import alerting
from typed_platform import ROOT

pytestmark = [
    pytest.mark.prometheus,
    pytest.mark.skipif(
        not binaries.ready(["alertmanager"]) and shutil.which("go") is None, reason=f"no Alertmanager: type `{binaries.COMMAND}`"
    ),
]


def test_alertmanager_takes_it(tmp_path: Path) -> None:
    base = read_environment(ROOT / "platform" / "environments" / "gke-prod.yaml").model_dump()
    base["monitoring"]["receivers"] |= {
        "post": {"kind": "email", "to": "ml@example.com", "sender": "alerts@example.com", "smarthost": "mail.example.com:587"},
        "hook": {"kind": "webhook", "severities": ["info"]},
    }
    environment = Environment.model_validate(base)
    text = alerting.configuration(environment)
    for name in alerting.sources(environment):
        text = text.replace(f"{{{{ .{name} }}}}", "https://hooks.example.com/abc")
    with (
        AlertmanagerServer(tmp_path, free_ports(1)[0], yaml.safe_load(text)) as running,
        urllib.request.urlopen(f"http://{running.address}/api/v2/receivers", timeout=10) as answer,
    ):
        names = {one["name"] for one in yaml.safe_load(answer.read())}
    assert names == {"nobody", "trigger-fraud", "on-call", "channel", "post", "hook"}
