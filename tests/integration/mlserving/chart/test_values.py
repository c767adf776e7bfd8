"""What the chart's values do, and which are refused with what words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart_values import CHARTS
from mlserving.gateway.recorder import _FAREWELL_SECONDS
from mlserving.gateway.settings import FILE, GatewaySettings, Track
from mlserving.monitor import command as monitor_command
from mlserving.predictions import label_journal
from mlserving.rollout.document import Desired, Wanted
from mlserving.rollout.helm import values_of
from mlserving.rollout.plan import Phase, Verdict
from mlserving.tracks.fleet import told_of
from model_serving_values import MOVED, Values
from rollouts import rollout

CHART = CHARTS / "model-serving"
Helm = Callable[..., Any]
Objects = Callable[..., dict[tuple[str, str], Any]]
LOG = ("--set", "gateway.predictions.kind=claim,gateway.predictions.claim.name=log")
BUCKET = ("--set", "gateway.predictions.kind=gcs,gateway.predictions.bucket.name=log")
MONITOR = ("--set", "monitor.enabled=true")
REVIEW = ("--set", "review.enabled=true,review.database.claim.name=queue,review.access.users.name=people")
SERVER = ("--set", "review.database.kind=postgresql,review.database.secret.name=address,review.sessions.name=sessions")
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
        ("monitor.enabled=true", "monitor.enabled: there is no prediction log to look at"),
        ("monitor.every=300", "monitor/every"),
        ("review.enabled=true", "review.enabled: there is no prediction log to choose from"),
        ("review.publicUrl=review.example", "review/publicUrl"),
        ("review.fill.schedule=daily", "review/fill/schedule"),
    ],
)
def test_what_cannot_be_meant_is_refused(template: Helm, values: str, complaint: str) -> None:
    refused = template("--set", values)
    assert refused.returncode != 0
    assert complaint in refused.stderr


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("review.replicas=2", "a queue in a file is for one"),
        ("review.database.claim.name=", "review.database.claim.name is missing"),
        ("review.database.kind=postgresql", "review.database.secret.name is missing"),
        ("review.database.kind=postgresql,review.database.secret.name=address", "review.sessions.name is missing"),
        ("review.access.users.name=", "review.access.users.name is missing"),
        ("review.access.kind=iap", "review.access.audience is missing"),
        ("review.access.kind=proxy", "anybody could write the header of a proxy"),
    ],
)
def test_a_review_page_that_could_not_work_is_refused(template: Helm, values: str, complaint: str) -> None:
    refused = template(*LOG, *REVIEW, "--set", values)
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
    assert ours["spec"]["containers"][0]["image"] == f"model-server:{yaml.safe_load((CHART / 'Chart.yaml').read_text())['appVersion']}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert theirs["spec"]["containers"][0][probe] == ours["spec"]["containers"][0][probe]


def test_what_a_pod_needs_when_it_goes_fits_into_its_grace(objects: Objects) -> None:
    values = ("--set", "server.drainSeconds=7,server.graceSeconds=11,gateway.drainSeconds=5,gateway.graceSeconds=9")
    server, gateway = pod(objects, "stable", *values)["spec"], pod(objects, "gateway", *values)["spec"]
    assert server["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 7}}}
    assert server["terminationGracePeriodSeconds"] == 18
    assert {"--drain=5", "--grace=9"} <= set(gateway["containers"][0]["args"])
    assert gateway["terminationGracePeriodSeconds"] >= 5 + 9 + _FAREWELL_SECONDS, "the recorder takes what is spooled"


def rules(name: str) -> Any:
    return yaml.safe_load((CHART / "rules" / f"{name}.yaml").read_text())


def test_metrics_of_either_flavour_come_from_the_same_pods_and_rules(objects: Objects) -> None:
    both = (*LOG, *MONITOR, *REVIEW)
    operator, google = objects(*both, "--set", "monitoring.flavour=operator"), objects(*both, "--set", "monitoring.flavour=gmp")
    assert operator["PrometheusRule", "cards"]["spec"] == google["Rules", "cards"]["spec"] == rules("model-serving")
    assert operator["PrometheusRule", "cards-monitor"]["spec"] == google["Rules", "cards-monitor"]["spec"] == rules("monitor")
    assert operator["PrometheusRule", "cards-review"]["spec"] == google["Rules", "cards-review"]["spec"] == rules("review")
    for name in ("cards-gateway", "cards-server", "cards-monitor", "cards-review"):
        one, other = operator["PodMonitor", name]["spec"], google["PodMonitoring", name]["spec"]
        assert one["selector"] == other["selector"]
        (theirs,), (googles,) = one["podMetricsEndpoints"], other["endpoints"]
        assert (theirs["port"], theirs["path"]) == (googles["port"], googles["path"])
        assert theirs.get("metricRelabelings") == googles.get("metricRelabeling")
        assert theirs["port"] in scraped(operator, one["selector"]["matchLabels"])
    assert not {kind for kind, _ in objects()} & {"PodMonitor", "PodMonitoring", "PrometheusRule", "Rules"}


def scraped(objects: dict[tuple[str, str], Any], labels: dict[str, str]) -> set[str]:
    """The ports of every pod that a monitor selects."""
    pods = [thing["spec"]["template"] for (kind, _), thing in objects.items() if kind == "Deployment"]
    found = [pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items()]
    assert found
    return set.intersection(*({port["name"] for port in pod["spec"]["containers"][0]["ports"]} for pod in found))


def test_rules_about_what_is_not_there_are_not_rendered(objects: Objects) -> None:
    flavour = ("--set", "monitoring.flavour=operator")
    for what in ("cards-monitor", "cards-review"):
        assert not {("PrometheusRule", what), ("PodMonitor", what), ("Deployment", what)} & objects(*LOG, *flavour).keys()


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


# -- the monitor -------------------------------------------------------------------------------------------------------------


def test_the_monitor_is_told_where_to_look_in_words_that_its_command_knows(objects: Objects, tmp_path: Path) -> None:
    said = "monitor.every=15m,monitor.since=7d,monitor.by={team,region}"
    (container,) = pod(objects, "monitor", *LOG, *MONITOR, *CANARY, "--set", said)["spec"]["containers"]
    command, *arguments = container["args"]
    assert command == "monitor"
    (tmp_path / "models" / "cards" / "7").mkdir(parents=True)
    (tmp_path / "models" / "cards" / "7" / "saved_model.pb").touch()
    here = {"--store=/store": f"--store={tmp_path}/models", "--predictions=/predictions": f"--predictions={tmp_path}/predictions"}
    parsed = monitor_command._parser().parse_args([here.get(argument, argument) for argument in arguments])
    wanted = monitor_command._wanted(parsed)
    assert (wanted.models, wanted.since, wanted.by) == (("cards",), "7d", ("team", "region"))
    assert wanted.addresses == ("cards-stable.fraud.svc:8501", "cards-canary.fraud.svc:8501")
    assert (parsed.every, parsed.listen) == ("15m", "0.0.0.0:9108")
    assert container["ports"] == [{"name": "metrics", "containerPort": 9108}]
    assert {mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly")} == {"/predictions", "/store"}


def test_one_monitor_looks_also_while_it_is_replaced(objects: Objects) -> None:
    spec = objects(*LOG, *MONITOR)["Deployment", "cards-monitor"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_a_monitor_without_a_store_that_can_be_mounted_has_copies_of_what_is_served(objects: Objects) -> None:
    store = ("--set", "store.kind=gcs-copy,store.bucket.name=models,tracks.stable.digest=" + "a" * 64)
    found = pod(objects, "monitor", *LOG, *MONITOR, *CANARY, *store)["spec"]
    asked = {tuple(container["args"][1:3]) for container in found["initContainers"]}
    assert asked == {("cards", "7"), ("cards", "8")}
    assert "--digest=" + "a" * 64 in next(c for c in found["initContainers"] if c["name"] == "fetch-stable")["args"]
    assert "--store=/models" in found["containers"][0]["args"]
    same = ("--set", "tracks.canary.version=7")
    assert len(pod(objects, "monitor", *LOG, *MONITOR, *CANARY, *store, *same)["spec"]["initContainers"]) == 1, "a version once"


def peers(policy: Any, direction: str, port: str) -> list[str]:
    """The components that may come, or that may be reached, by a port."""
    rules_ = [rule for rule in policy["spec"][direction] if any(each.get("port") == port for each in rule.get("ports", []))]
    found = [peer for rule in rules_ for peer in rule.get("to" if direction == "egress" else "from", [])]
    return [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in found if "podSelector" in peer]


def test_only_who_asks_golden_requests_may_ask_the_servers_beside_the_gateway(objects: Objects) -> None:
    asks, silent = objects(*LOG, *MONITOR), objects(*LOG, *MONITOR, "--set", "monitor.golden=false")
    assert peers(asks["NetworkPolicy", "cards-server"], "ingress", "rest") == ["gateway", "monitor"]
    assert peers(asks["NetworkPolicy", "cards-monitor"], "egress", "rest") == ["server"]
    assert peers(silent["NetworkPolicy", "cards-server"], "ingress", "rest") == ["gateway"]
    assert peers(silent["NetworkPolicy", "cards-monitor"], "egress", "rest") == []
    assert not [argument for argument in pod(objects, "monitor", *LOG, *MONITOR, "--set", "monitor.golden=false")["spec"]["containers"][0]["args"] if "address" in argument]  # fmt: skip


# -- labels ------------------------------------------------------------------------------------------------------------------


def journal(spec: Any) -> tuple[Any, str]:
    """The volume in which labels wait, and the folder that the process is told; nothing where they lie in the log's own."""
    (container,) = spec["containers"]
    told = next((each["value"] for each in container.get("env", []) if each["name"] == label_journal.VARIABLE), "")
    mounted = next((each["name"] for each in container["volumeMounts"] if each["mountPath"] == told), None)
    return next((volume for volume in spec["volumes"] if volume["name"] == mounted), None), told


def test_labels_wait_on_a_file_system_that_locks_wherever_the_log_lies(objects: Objects) -> None:
    named = ("--set", "gateway.predictions.journal.name=labels")
    assert journal(pod(objects, "gateway", *LOG)["spec"]) == (None, "")
    assert journal(pod(objects, "gateway", *BUCKET)["spec"]) == ({"name": "journal", "emptyDir": {}}, "/journal")
    for log in (LOG, BUCKET):
        claim = {"name": "journal", "persistentVolumeClaim": {"claimName": "labels"}}
        assert journal(pod(objects, "gateway", *log, *named)["spec"]) == (claim, "/journal")
    assert journal(pod(objects, "review", *BUCKET, *REVIEW)["spec"]) == ({"name": "journal", "emptyDir": {}}, "/journal")


# -- review ------------------------------------------------------------------------------------------------------------------


def fill_pod(objects: Objects, *arguments: str) -> Any:
    return objects(*arguments)["CronJob", "cards-review-fill"]["spec"]["jobTemplate"]["spec"]["template"]


def test_a_queue_in_a_file_has_one_page_and_is_filled_on_its_node(objects: Objects) -> None:
    chosen = (*LOG, *REVIEW)
    deployment = objects(*chosen)["Deployment", "cards-review"]
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})
    (term,) = fill_pod(objects, *chosen)["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert ("PodDisruptionBudget", "cards-review") not in objects(*chosen)


def test_a_queue_in_a_database_has_as_many_pages_as_one_likes(objects: Objects) -> None:
    chosen = (*LOG, *REVIEW, *SERVER, "--set", "review.replicas=3")
    found = objects(*chosen)
    assert found["Deployment", "cards-review"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert ("PodDisruptionBudget", "cards-review") in found
    fill = fill_pod(objects, *chosen)["spec"]
    assert "affinity" not in fill
    address = {"name": "MILLRACE_DATABASE", "valueFrom": {"secretKeyRef": {"name": "address", "key": "url"}}}
    assert address in pod(objects, "review", *chosen)["spec"]["containers"][0]["env"]
    assert address in fill["containers"][0]["env"]
    assert {"port": 5432, "protocol": "TCP"} in [
        port for rule in found["NetworkPolicy", "cards-review"]["spec"]["egress"] for port in rule["ports"]
    ]


def test_the_page_and_its_job_are_in_the_page_s_network_policy(objects: Objects) -> None:
    found = objects(*LOG, *REVIEW)
    selector = found["NetworkPolicy", "cards-review"]["spec"]["podSelector"]
    (expression,) = selector["matchExpressions"]
    for template_ in (pod(objects, "review", *LOG, *REVIEW), fill_pod(objects, *LOG, *REVIEW)):
        labels = template_["metadata"]["labels"]
        assert selector["matchLabels"].items() <= labels.items()
        assert labels[expression["key"]] in expression["values"]


def test_what_people_saw_is_erased_where_one_says_when(objects: Objects) -> None:
    assert [each["name"] for each in fill_pod(objects, *LOG, *REVIEW)["spec"]["containers"]] == ["fill"]
    kept = fill_pod(objects, *LOG, *REVIEW, "--set", "review.fill.keepDays=90")["spec"]["containers"]
    assert [each["name"] for each in kept] == ["fill", "forget"]
    assert "--older-than=90" in kept[1]["args"]
