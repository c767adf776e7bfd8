"""What the chart's values do, and which are refused with what words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart_values import CHARTS
from mlserving.gateway.settings import FILE, GatewaySettings, Track
from mlserving.rollout.document import Desired, Wanted
from mlserving.rollout.helm import values_of
from mlserving.rollout.plan import Phase, Verdict
from mlserving.tracks.fleet import told_of
from model_serving_values import MOVED, Values
from rollouts import rollout

CHART = CHARTS / "model-serving"
Helm = Callable[..., Any]
Objects = Callable[..., dict[tuple[str, str], Any]]
CANARY = ("--set", "tracks.canary.enabled=true,tracks.canary.version=8,tracks.canary.weight=10,tracks.stable.weight=90")


def settings(objects: Objects, *arguments: str) -> GatewaySettings:
    return FILE.parse(objects(*arguments)["ConfigMap", "cards-gateway"]["data"]["gateway.yaml"], "the chart")


def pod(objects: Objects, name: str, *arguments: str) -> Any:
    return objects(*arguments)["Deployment", f"cards-{name}"]["spec"]["template"]


def test_the_values_are_those_that_are_modelled() -> None:
    Values.model_validate(yaml.safe_load((CHART / "values.yaml").read_text()))


def test_the_gateway_understands_what_the_chart_writes_for_it(objects: Objects) -> None:
    found = settings(objects, *CANARY, "--set", "tracks.shadow.enabled=true,tracks.shadow.version=9,tracks.shadow.weight=25")
    tracks = found.models["cards"].tracks
    assert {track: backend.weight for track, backend in tracks.items()} == {Track.STABLE: 90, Track.CANARY: 10, Track.SHADOW: 25}
    assert tracks[Track.CANARY].grpc == "cards-canary.fraud.svc:8500"
    assert tracks[Track.CANARY].rest == "cards-canary.fraud.svc:8501"


def test_a_track_that_is_not_enabled_gets_nothing(objects: Objects) -> None:
    assert set(settings(objects).models["cards"].tracks) == {Track.STABLE}
    assert ("Deployment", "cards-canary") not in objects()


def test_what_is_said_of_the_gateway_reaches_its_file(objects: Objects) -> None:
    said = "gateway.settings.sticky=x-customer,gateway.settings.log.features={merchant},gateway.settings.limits.in_flight=12345678"
    # Helm takes 2.5 on its command line for a text.
    found = settings(objects, "--set", said, "--set-json", "gateway.settings.deadline=2.5,gateway.settings.log.share=0.5")
    model = found.models["cards"]
    assert (model.sticky, model.deadline, model.log.share, model.log.features) == ("x-customer", 2.5, 0.5, ("merchant",))
    assert found.limits.in_flight == 12345678


def test_the_gateway_is_told_of_a_rollout_what_it_is_told_on_one_machine(objects: Objects) -> None:
    judged = rollout(phase=Phase.HOLDING, step=2, verdict=Verdict.UNCLEAR)
    tracks = {Track.STABLE: Wanted(version=1, weight=50), Track.CANARY: Wanted(version=2, weight=50)}
    desired = Desired(model="cards", tracks=tracks, rollout=judged)
    said = [text for name, value in values_of(desired).items() for text in ("--set-json", f"{name}={json.dumps(value)}")]
    assert settings(objects, *said).models["cards"].rollout == told_of(desired) is not None
    assert settings(objects).models["cards"].rollout is None


def test_a_version_is_a_number_however_large(objects: Objects) -> None:
    spec = pod(objects, "stable", "--set", "tracks.stable.version=1790000000")
    assert spec["metadata"]["labels"]["millrace.dev/version"] == "1790000000"
    assert "specific { versions: 1790000000 }" in spec["metadata"]["annotations"]["millrace.dev/models.config"]
    (container,) = spec["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/v1/models/cards/versions/1790000000/metadata"
    assert spec["spec"]["initContainers"][0]["args"][:3] == ["fetch", "cards", "1790000000"]


def test_a_change_of_weights_changes_no_pod(objects: Objects) -> None:
    before, after = objects(*CANARY), objects(*CANARY, "--set", "tracks.canary.weight=50,tracks.stable.weight=50")
    assert [name for name in before if before[name] != after[name]] == [("ConfigMap", "cards-gateway")]


def test_another_version_changes_the_pods_of_its_track_alone(objects: Objects) -> None:
    before, after = objects(*CANARY), objects(*CANARY, "--set", "tracks.canary.version=9")
    assert [name for name in before if before[name] != after[name]] == [("Deployment", "cards-canary")]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("tracks.stable.weigth=90", "additional properties 'weigth' not allowed"),
        ("gateway.settings.log.shares=1", "additional properties 'shares' not allowed"),
        ("tracks.stable.version=-1", "tracks/stable/version"),
        ("tracks.stable.digest=sha256:abc", "tracks/stable/digest"),
        ("store.kind=hostPath", "store/kind"),
        ("store.claim.path=../etc", "store/claim/path"),
        ("gateway.settings.sticky=X-Customer", "gateway/settings/sticky"),
        ("gateway.settings.log.share=2", "gateway/settings/log/share"),
        ("monitoring.flavour=prometheus", "monitoring/flavour"),
        ("model.name=a/b", "model/name"),
        ("model.name=", "model.name is missing"),
        ("tracks.stable.version=0", "tracks.stable.version is missing"),
        ("tracks.canary.enabled=true", "tracks.canary.version is missing"),
        ("tracks.stable.enabled=false", "somebody must answer"),
        ("tracks.stable.weight=90", "add up to 90, not 100"),
        ("tracks.canary.enabled=true,tracks.canary.version=8,tracks.canary.weight=10", "add up to 110, not 100"),
        ("server.kind=millrace,server.batching.enabled=true", "server.batching and server.moreArguments are TensorFlow Serving's"),
        ("server.batching.allowedBatchSizes={8,16}", "the last of allowedBatchSizes must be maxBatchSize (64)"),
        ("tracks.stable.autoscaling.enabled=true,tracks.stable.autoscaling.cpu=0", "tracks.stable.autoscaling looks at nothing"),
        ("gateway.autoscaling.enabled=true,gateway.autoscaling.cpu=0", "gateway.autoscaling looks at nothing"),
        ("store.kind=gcs-copy", "store.bucket.name"),
        ("gateway.predictions.kind=gcs", "Name the bucket of predictions"),
    ],
)
def test_what_cannot_be_meant_is_refused(template: Helm, values: str, complaint: str) -> None:
    refused = template("--set", values)
    assert refused.returncode != 0
    assert complaint in refused.stderr


@pytest.mark.parametrize("old", MOVED)
def test_an_old_spelling_is_refused_with_the_new_one(template: Helm, old: str) -> None:
    for value in ("5", '{"a": 1}'):
        refused = template("--set-json", f"{old}={value}")
        assert refused.returncode != 0
        assert f"{old} is spelled otherwise. Write: {MOVED[old]}" in refused.stderr


def test_an_older_cluster_is_refused(template: Helm) -> None:
    assert "incompatible with Kubernetes" in template("--kube-version", "1.29.4").stderr


def test_gke_versions_are_understood(template: Helm) -> None:
    assert template("--kube-version", "v1.36.3-gke.1200").returncode == 0


def test_tensorflow_serving_and_our_server_are_given_the_same_models(objects: Objects) -> None:
    theirs, ours = pod(objects, "stable"), pod(objects, "stable", "--set", "server.kind=millrace")
    assert theirs["metadata"]["annotations"]["millrace.dev/models.config"] == ours["metadata"]["annotations"]["millrace.dev/models.config"]
    assert theirs["spec"]["containers"][0]["image"] == "tensorflow/serving:2.20.0"
    assert ours["spec"]["containers"][0]["image"] == "model-server:0.1.0"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert theirs["spec"]["containers"][0][probe] == ours["spec"]["containers"][0][probe]


def test_what_a_pod_needs_when_it_goes_fits_into_its_grace(objects: Objects) -> None:
    values = ("--set", "server.drainSeconds=7,server.graceSeconds=11,gateway.drainSeconds=5,gateway.graceSeconds=9")
    server, gateway = pod(objects, "stable", *values)["spec"], pod(objects, "gateway", *values)["spec"]
    assert server["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 7}}}
    assert server["terminationGracePeriodSeconds"] == 18
    assert {"--drain=5", "--grace=9"} <= set(gateway["containers"][0]["args"])
    assert gateway["terminationGracePeriodSeconds"] >= 14


def test_metrics_of_either_flavour_come_from_the_same_pods_and_rules(objects: Objects) -> None:
    rules = yaml.safe_load((CHART / "rules" / "model-serving.yaml").read_text())
    operator, google = objects("--set", "monitoring.flavour=operator"), objects("--set", "monitoring.flavour=gmp")
    assert operator["PrometheusRule", "cards"]["spec"] == google["Rules", "cards"]["spec"] == rules
    for name in ("cards-gateway", "cards-server"):
        one, other = operator["PodMonitor", name]["spec"], google["PodMonitoring", name]["spec"]
        assert one["selector"] == other["selector"]
        (theirs,), (googles,) = one["podMetricsEndpoints"], other["endpoints"]
        assert (theirs["port"], theirs["path"]) == (googles["port"], googles["path"])
        assert theirs.get("metricRelabelings") == googles.get("metricRelabeling")
    assert not {kind for kind, _ in objects()} & {"PodMonitor", "PodMonitoring", "PrometheusRule", "Rules"}


def test_our_own_server_has_no_metrics_of_tensorflow_serving_s(objects: Objects) -> None:
    assert ("PodMonitor", "cards-server") not in objects("--set", "monitoring.flavour=operator,server.kind=millrace")


def test_runbooks_can_be_read_elsewhere(objects: Objects) -> None:
    rule = objects("--set", "monitoring.flavour=gmp,monitoring.rules.runbooks=https://wiki.example/runbooks")["Rules", "cards"]
    urls = [alert["annotations"]["runbook_url"] for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert {url.rpartition("/")[0] for url in urls} == {"https://wiki.example/runbooks"}


def test_the_dashboard_is_where_the_sidecar_looks(objects: Objects) -> None:
    config = objects("--set", "monitoring.dashboard.enabled=true")["ConfigMap", "cards-dashboard"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["data"]["model-serving.json"].strip() == (CHART / "dashboards" / "model-serving.json").read_text().strip()


def test_a_mounted_bucket_and_one_that_is_read_over_its_api_are_the_same_folder(objects: Objects, tmp_path: Path) -> None:
    bucket = ("--set", "store.bucket.name=models,store.bucket.path=production")
    mounted = pod(objects, "stable", *bucket, "--set", "store.kind=gcs")
    assert mounted["metadata"]["annotations"]["gke-gcsfuse/volumes"] == "true"
    volume = next(volume for volume in mounted["spec"]["volumes"] if volume["name"] == "store")["csi"]
    assert (volume["driver"], volume["readOnly"]) == ("gcsfuse.csi.storage.gke.io", True)
    assert volume["volumeAttributes"]["bucketName"] == "models"
    assert "only-dir=production" in volume["volumeAttributes"]["mountOptions"].split(",")
    copied = pod(objects, "stable", *bucket, "--set", "store.kind=gcs-copy")
    assert "--store=gs://models/production" in copied["spec"]["initContainers"][0]["args"]
    assert "store" not in {volume["name"] for volume in copied["spec"]["volumes"]}
