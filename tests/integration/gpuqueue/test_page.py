"""The controller's API and page, as people with real tokens reach them: what they may see, and nothing else."""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

import browser
import control_plane as planes
import gpu_objects as make
from api_client import Client
from control_plane import ControlPlane
from gpu_team import Team
from replicas import Replicas
from waiting import eventually

pytestmark = [pytest.mark.control_plane, pytest.mark.timeout(120)]


@dataclass(frozen=True, slots=True)
class Answer:
    """Of the page or the API."""

    status: int
    headers: Message
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True, slots=True)
class Site:
    """A replica's two ports."""

    public: int
    private: int

    def get(self, path: str, token: str | None = None, *, private: bool = False, **headers: str) -> Answer:
        said = headers | ({"Authorization": f"Bearer {token}"} if token is not None else {})
        return self.request("GET", path, said, port=self.private if private else self.public)

    def request(self, method: str, path: str, headers: Mapping[str, str], body: str | None = None, *, port: int | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.public, timeout=30)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    def sign_in(self, token: str, **headers: str) -> Answer:
        form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        return self.request("POST", "/login", form, urllib.parse.urlencode({"token": token}))


@pytest.fixture(scope="module")
def site(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One replica, with its page."""
    found = Site(*planes.free_ports(2))
    with Replicas(control_plane, tmp_path_factory.mktemp("replicas"), count=0) as replicas:
        replicas.start("--listen", f"127.0.0.1:{found.public}", "--probes", f"127.0.0.1:{found.private}")
        eventually("it is ready", lambda: _ready(found), 30)
        yield found


def _ready(site: Site) -> bool:
    try:
        return site.get("/readyz", private=True).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def team(control_plane: ControlPlane, fresh_name: Callable[[], str], site: Site) -> Iterator[Team]:
    """One holds the only GPU, one waits, and one can never start."""
    team = Team(control_plane.client, fresh_name())
    team.api.request("POST", "/api/v1/namespaces", make.namespace(team.name))
    team.queue(lanes=[make.lane(quota=1)], budget={"gpuHours": 100})
    team.submit("holder")
    eventually("it starts", lambda: team.is_open("holder"), 30)
    team.submit("waiter")
    team.submit("huge", 64)
    eventually("they are told", lambda: bool(team.told("waiter") and team.told("huge")), 30)
    yield team
    team.leave()


@pytest.fixture(scope="module")
def other(control_plane: ControlPlane, fresh_name: Callable[[], str]) -> Iterator[Team]:
    """Another team, which the viewer is no member of."""
    other = Team(control_plane.client, fresh_name())
    other.api.request("POST", "/api/v1/namespaces", make.namespace(other.name))
    other.queue()
    yield other
    other.leave()


def token_of(api: Client, namespace: str, name: str) -> str:
    """What `kubectl create token NAME` prints."""
    api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token: str = api.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", request)["status"]["token"]
    return token


@pytest.fixture(scope="module")
def viewer(team: Team, other: Team) -> str:
    """The token of somebody who may get the pods of the team and its queue, and nothing of the other one."""
    token = token_of(team.api, team.name, "viewer")
    user = f"system:serviceaccount:{team.name}:viewer"
    for thing in [
        *make.may(user, "pods", namespace=team.name, verbs=("get",)),
        *make.may(user, "gpuqueues", group="gpu-queue.dev", verbs=("get",), names=(team.name,)),
    ]:
        team.api.apply(thing)
    eventually("they may", lambda: _may_get(team, user), 30)
    return token


def _may_get(team: Team, user: str) -> bool:
    attributes = {"group": "gpu-queue.dev", "resource": "gpuqueues", "verb": "get", "name": team.name}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    return bool(team.api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"])


def shown(site: Site, path: str, token: str, text: str) -> Answer:
    """The page, once it shows `text`: a replica's picture may be a second old."""
    eventually(f"{path} shows {text}", lambda: text in site.get(path, token).text, 30)
    return site.get(path, token)


# -- who asks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic dTpw"}, {"Authorization": "Bearer wrong"}])
@pytest.mark.parametrize("path", ["/api/v1/queues", "/api/v1/queues/x", "/api/v1/namespaces/a/pods/b", "/api/v1/nothing"])
def test_without_a_token_that_the_cluster_knows_there_is_no_answer(site: Site, path: str, header: dict[str, str]) -> None:
    refused = site.request("GET", path, header)
    assert refused.status == 401
    assert "kubectl create token" in refused.json["error"]


def test_a_token_of_odd_bytes_is_just_a_wrong_one(site: Site) -> None:
    assert site.request("GET", "/api/v1/queues", {"Authorization": "Bearer \xff\xfe"}).status == 401
    assert site.sign_in("ÿþ").status == 401


def test_a_page_without_a_token_leads_to_the_sign_in(site: Site) -> None:
    for path in ("/", "/queues/x", "/nothing"):
        sent = site.get(path)
        assert (sent.status, sent.headers["Location"]) == (303, "/login")
    assert "kubectl create token" in site.get("/login").text


def test_signing_in_sets_a_cookie_that_scripts_and_other_sites_cannot_use(site: Site, team: Team, viewer: str) -> None:
    signed = site.sign_in(viewer)
    assert (signed.status, signed.headers["Location"]) == (303, "/")
    (cookie,) = SimpleCookie(signed.headers["Set-Cookie"]).values()
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    mine = {"Cookie": f"{cookie.key}={cookie.value}"}
    assert team.name in site.request("GET", "/", mine).text
    assert site.request("GET", f"/api/v1/queues/{team.name}", mine).status == 200
    out = site.request("POST", "/logout", mine)
    assert SimpleCookie(out.headers["Set-Cookie"])[cookie.key].value == ""


def test_a_wrong_token_is_said_to_be_wrong_and_sets_nothing(site: Site) -> None:
    for token in ("wrong", "", "x" * 10_000):
        refused = site.sign_in(token)
        assert refused.status == 401
        assert "does not accept this token" in refused.text
        assert refused.headers["Set-Cookie"] is None
    assert site.sign_in("x" * 100_000).status == 413


def test_another_site_cannot_sign_anybody_in(site: Site, viewer: str) -> None:
    refused = site.sign_in(viewer, **{"Sec-Fetch-Site": "cross-site"})
    assert (refused.status, refused.headers["Set-Cookie"]) == (403, None)


# -- what they may see ---------------------------------------------------------------------------------------------------------


def test_a_queue_is_for_those_who_may_get_it(site: Site, team: Team, other: Team, viewer: str) -> None:
    eventually("the other queue is there", lambda: other.name in site.get("/metrics", private=True).text, 30)
    assert [queue["name"] for queue in site.get("/api/v1/queues", viewer).json["queues"]] == [team.name]
    hidden = site.get(f"/api/v1/queues/{other.name}", viewer)
    missing = site.get("/api/v1/queues/none-of-that-name", viewer)
    assert hidden.status == missing.status == 404
    assert hidden.text.replace(other.name, "X") == missing.text.replace("none-of-that-name", "X"), "nobody learns which queues there are"
    assert site.get(f"/queues/{other.name}", viewer).status == 404
    assert other.name not in site.get("/", viewer).text


def test_a_pod_is_for_those_who_may_get_it(site: Site, team: Team, other: Team, viewer: str) -> None:
    other.submit("secret")
    eventually("it starts", lambda: other.is_open("secret"), 30)
    assert site.get(f"/api/v1/namespaces/{other.name}/pods/secret", viewer).status == 404
    assert site.get(f"/api/v1/namespaces/{team.name}/pods/waiter", viewer).json["place"] == 1


def test_who_may_see_nothing_is_told_so(site: Site, team: Team) -> None:
    token = token_of(team.api, team.name, "stranger")
    assert site.get("/api/v1/queues", token).json["queues"] == []
    assert "You may see no queue" in site.get("/", token).text


def test_the_api_says_who_holds_and_who_waits(site: Site, team: Team, viewer: str) -> None:
    shown(site, f"/api/v1/queues/{team.name}", viewer, "NeverFits")
    queue = site.get(f"/api/v1/queues/{team.name}", viewer).json
    (lane,) = queue["lanes"]
    assert (lane["quota"], lane["granted"], lane["free"], lane["nextQuota"]) == (1, 1, 0, None)
    assert [(each["name"], each["gpus"], each["pods"]) for each in lane["holders"]] == [("holder", 1, 1)]
    (waiter,) = lane["line"]
    assert (waiter["name"], waiter["place"], waiter["reason"], waiter["pods"]) == ("waiter", 1, "QuotaInUse", ["waiter"])
    assert [each["reason"] for each in queue["passedBy"]] == ["NeverFits"]
    assert queue["budget"] | {"spentHours": 0} == {
        "period": make.this_month(),
        "hours": 100.0,
        "spentHours": 0,
        "whenSpent": "warn",
        "ends": queue["budget"]["ends"],
    }
    assert site.get("/api/v1/queues", viewer).json["leader"] == "replica-0"


@pytest.mark.parametrize(("pod", "state"), [("waiter", "waiting"), ("holder", "granted"), ("nobody", "unmanaged")])
def test_the_api_says_where_a_pod_stands(site: Site, team: Team, viewer: str, pod: str, state: str) -> None:
    found = site.get(f"/api/v1/namespaces/{team.name}/pods/{pod}", viewer).json
    assert (found["namespace"], found["name"], found["state"]) == (team.name, pod, state)
    assert found["message"]


# -- safety --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/login", "/queues/none", "/nothing", "/api/v1/queues", "/api/v1/nothing", "/style.css"])
def test_every_answer_forbids_scripts_frames_and_guessing(site: Site, viewer: str, path: str) -> None:
    headers = site.get(path, viewer).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == ("max-age=300" if path == "/style.css" else "no-store")


def test_what_people_write_is_shown_and_not_run(site: Site, team: Team, viewer: str, fresh_name: Callable[[], str]) -> None:
    """A pod's name cannot hold markup; a group's annotation can, and so can a zone in a queue's calendar."""
    evil = "<script>alert(1)</script>"
    team.submit("evil", notes=make.group(evil, 2))
    page = shown(site, f"/queues/{team.name}", viewer, "alert(1)").text
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in site.get(f"/queues/{urllib.parse.quote(evil)}", viewer).text
    team.end("evil")
    eventually("it is forgotten", lambda: "alert(1)" not in site.get(f"/queues/{team.name}", viewer).text, 30)


def test_probes_and_metrics_are_on_the_other_port_only(site: Site, viewer: str) -> None:
    assert [site.get(path, private=True).status for path in ("/healthz", "/readyz", "/metrics")] == [200, 200, 200]
    eventually("it says that it leads", lambda: "gpuqueue_leader 1.0" in site.get("/metrics", private=True).text, 30)
    assert [site.get(path, viewer).status for path in ("/healthz", "/readyz", "/metrics")] == [404, 404, 404]
    assert site.get("/api/v1/queues", viewer, private=True).status == 404


# -- in a browser --------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.MISSING)
def test_a_browser_shows_the_lines(site: Site, team: Team, viewer: str, tmp_path: Path) -> None:
    shown(site, f"/queues/{team.name}", viewer, "waiter")
    with browser.forwarded(f"http://127.0.0.1:{site.public}", viewer) as url:
        page = browser.look(f"{url}/queues/{team.name}", profile=tmp_path / "profile")
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "1 of 1 GPUs in use" in words
    assert f"1 waiter {team.name} 1" in words
    assert "QuotaInUse: 1st of 1 in" in words
    assert f"huge {team.name} 64" in words
