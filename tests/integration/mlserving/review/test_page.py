"""The review page as people use it: in a real browser, by keyboard, with a real server; and as others try to misuse it."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

import browser
from chromium import Browser, Window, chromium
from mlserving.predictions import reading
from mlserving.review.figures import Figures, figures
from mlserving.review.people import People
from mlserving.review.queue import ReviewQueue
from mlserving.review.tables import OUTBOX, Database
from review_cases import CLASSES, MODEL, batch, new_case
from review_site import Client, Served, people, served, sign_in
from waiting import eventually

pytestmark = [pytest.mark.timeout(240)]
needs_browser = pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.MISSING)
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"&amp;${7*7}{{7*7}}"


@dataclass(frozen=True)
class Office:
    """A model that is to be reviewed, the page on which that is done, and its people."""

    workspace: Path
    model: str
    server: Served
    tokens: dict[str, str]
    database: Database
    heard: int
    """What the server had logged before."""

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def page(self) -> str:
        return f"/models/{self.model}"

    def client(self, name: str) -> Client:
        """Somebody who is signed in, without a browser."""
        client = Client(self.url)
        assert client.sign_in(name, self.tokens[name]).status == 303
        return client

    def labels(self) -> list[tuple[str, str, str, str]]:
        """The labels that the prediction log's readers find."""
        found = reading.last_labels(self.workspace / "predictions", self.model).to_pylist()
        return sorted((label["prediction_id"], label["label"], label["source"], label["reviewer"]) for label in found)

    def events(self) -> list[dict[str, Any]]:
        """What the server logged since."""
        return self.server.events()[self.heard :]

    def figures(self) -> Figures:
        return figures(self.database, self.model, datetime.now(UTC))


NAMES = ("ann", "bob", "lead")
Open = Callable[..., Office]
_numbers = count()


def fill(database: Database, model: str, cases: int = 12, **case: Any) -> None:
    now = datetime.now(UTC)
    chosen = [new_case(f"p{number:02}", CLASSES[number % 4], **case) for number in range(cases)]
    ReviewQueue(database).put(batch(now - timedelta(hours=1), model=model, now=now), chosen, CLASSES)


def database_of(workspace: Path) -> Database:
    return Database(f"sqlite:///{workspace}/serving/serving.db")


@dataclass(frozen=True)
class Site:
    """A server with people."""

    workspace: Path
    server: Served
    tokens: dict[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """For all who only work there."""
    workspace = tmp_path_factory.mktemp("site")
    tokens = people(workspace, NAMES)
    with served(workspace, "--hold", "0") as server:
        yield Site(workspace, server, tokens)


@pytest.fixture
def open_office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens an office with a model of its own, on everybody's server; with arguments, on a server of its own."""
    with ExitStack() as stack:

        def opened(*arguments: str, own: bool = False, **cases: Any) -> Office:
            if own or arguments:
                tokens = people(tmp_path, NAMES)
                at = Site(tmp_path, stack.enter_context(served(tmp_path, "--hold", "0", *arguments)), tokens)
            else:
                at = request.getfixturevalue("site")
            database = database_of(at.workspace)
            stack.callback(database.close)
            model = f"model-{next(_numbers)}"
            fill(database, model, **cases)
            return Office(at.workspace, model, at.server, at.tokens, database, len(at.server.events()))

        yield opened


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


def at_work(chrome: Browser, office: Office, name: str = "ann", **window: object) -> Window:
    """A window of somebody who looks at their first case."""
    found = chrome.window(**window)  # type: ignore[arg-type]
    sign_in(found, office.url, name, office.tokens[name])
    found.go(office.url + office.page)
    found.shows("The model says")
    return found


def case_of(window: Window) -> str:
    return window.text(".id")


# -- in a browser ------------------------------------------------------------------------------------------------------------


@needs_browser
def test_ten_cases_are_reviewed_by_keyboard_alone(chrome: Browser, open_office: Open) -> None:
    office = open_office()
    window = at_work(chrome, office)
    seen = []
    for done in range(10):
        window.shows(f"{done} done today")
        seen.append(case_of(window))
        if done % 3 == 2:  # every third one is wrong
            window.press("n")
            window.write("tra" if "travel" not in window.text("h1") else "boo")
            window.until("document.querySelectorAll('[role=option][aria-selected=true]').length")
            window.press("Enter")
        else:
            window.press("c")
    window.shows("10 done today · 2 left")
    assert len(set(seen)) == 10
    labels = eventually("all labels arrive", lambda: len(found := office.labels()) == 10 and found, 30)
    assert {source for _, _, source, _ in labels} == {"review"}
    assert {reviewer for *_, reviewer in labels} == {"ann"}
    wrong = [name for name, label, *_ in labels if label != CLASSES[int(name[1:]) % 4]]
    assert len(wrong) == 3
    assert window.complaints() == []


@needs_browser
def test_unsure_skip_and_undo_are_keys_too(chrome: Browser, open_office: Open) -> None:
    window = at_work(chrome, open_office(cases=3))
    first = case_of(window)
    window.press("u")
    window.shows("Saved: unsure")
    second = case_of(window)
    window.press("z")
    window.shows("Taken back")
    assert case_of(window) == first
    window.press("c")
    window.shows("Saved: confirmed")
    assert case_of(window) == second
    window.press("s")
    window.shows("Skipped")
    assert case_of(window) not in (first, second)
    window.press("c")
    assert "1 of" not in window.shows("Nothing is left for you")


@needs_browser
def test_a_class_is_found_by_typing_and_by_arrows(chrome: Browser, open_office: Open) -> None:
    office = open_office(cases=3)
    window = at_work(chrome, office)
    window.press("n")
    assert window.evaluate("document.activeElement.id") == "label"
    window.write("o")  # books begins with no o, but has one; so have groceries and tools
    options = window.until("[...document.querySelectorAll('[role=option]')].map(each => each.textContent)")
    assert options == [each for each in ("books", "groceries", "tools") if each != window.text("h1")] + ["New class: o"]
    window.press("ArrowDown")
    assert window.evaluate("document.querySelector('[aria-selected=true]').textContent") == options[1]
    assert window.evaluate("document.getElementById('label').getAttribute('aria-activedescendant')") == "match-1"
    name = case_of(window).partition("/")[0]
    window.press("Enter")
    window.shows("Saved: corrected")
    assert eventually("the label arrives", office.labels, 30) == [(name, options[1], "review", "ann")]


@needs_browser
def test_escape_leaves_the_field_and_letters_in_it_are_no_shortcuts(chrome: Browser, open_office: Open) -> None:
    office = open_office(cases=3)
    window = at_work(chrome, office)
    window.press("n")
    window.write("cusz")
    assert window.evaluate("document.getElementById('label').value") == "cusz"
    window.press("Escape")
    window.press("Escape")
    window.press("c")
    window.shows("Saved: confirmed")
    assert office.figures().people[0].reviews == 1


@needs_browser
def test_a_class_that_nobody_named_yet_is_asked_about(chrome: Browser, open_office: Open) -> None:
    office = open_office(cases=3)
    window = at_work(chrome, office)
    window.press("n")
    window.write("fine art")
    window.press("Enter")
    window.shows("Add the class “fine art”?")
    assert office.labels() == []
    window.press("Enter")  # the button has the focus
    window.shows("Saved: corrected")
    window.press("n")
    window.write("fin")
    assert "fine art" in window.until("[...document.querySelectorAll('[role=option]')].map(each => each.textContent)")


@needs_browser
def test_without_scripts_everything_still_works(chrome: Browser, open_office: Open) -> None:
    office = open_office(cases=3)
    window = at_work(chrome, office, scripts=False)
    assert window.evaluate("document.querySelectorAll('datalist option').length") == 3
    first = case_of(window)
    window.evaluate("document.querySelector('button[value=confirm]').focus()")
    window.press("Enter")
    window.shows("Saved: confirmed")
    window.evaluate("document.getElementById('label').focus()")
    window.write("BOOKS")
    window.press("Enter")
    window.shows("Saved: corrected")
    window.evaluate("document.querySelector('[data-key=z]').focus()")
    window.press("Enter")
    window.shows("Taken back")
    assert case_of(window) != first
    assert [each.reviews for each in office.figures().people] == [1]


@needs_browser
def test_the_tab_key_visits_what_one_does_in_the_order_in_which_one_reads(chrome: Browser, open_office: Open) -> None:
    office = open_office(cases=3)
    window = at_work(chrome, office)
    window.press("c")
    window.shows("Saved")
    visited = []
    for _ in range(12):
        window.press("Tab")
        visited.append(window.evaluate("(e => e.dataset.key || e.id || e.innerText)(document.activeElement)"))
    order = ["Skip to the content", "Review", office.model, "Figures", "Sign out", "c", "u", "s", "n", "Correct", "z", "keys"]
    assert visited == order


@needs_browser
def test_keys_can_be_switched_off(chrome: Browser, open_office: Open) -> None:
    window = at_work(chrome, open_office(cases=3))
    window.evaluate("document.getElementById('keys').focus()")
    window.press("Space")
    window.evaluate("document.activeElement.blur()")
    window.press("n")
    assert window.evaluate("document.activeElement.tagName") == "BODY"
    window.go(window.evaluate("location.href"))
    window.press("n")
    assert window.evaluate("document.activeElement.tagName") == "BODY", "it is remembered"


@needs_browser
def test_two_people_at_once_see_different_cases_and_each_others_name_nowhere(chrome: Browser, open_office: Open) -> None:
    office = open_office(cases=6)
    ann, bob = at_work(chrome, office, "ann"), at_work(chrome, office, "bob")
    seen = []
    for _ in range(3):
        seen += [case_of(ann), case_of(bob)]
        for window in (ann, bob):
            window.press("c")
            window.until("location.search.includes('confirm') && document.readyState === 'complete'")
    assert sorted(seen) == [f"p{number:02}/0" for number in range(6)]
    ann.shows("Nothing is left for you")
    assert "bob" not in ann.text()
    labels = eventually("all labels arrive", lambda: len(found := office.labels()) == 6 and found, 30)
    assert sorted(reviewer for *_, reviewer in labels) == ["ann"] * 3 + ["bob"] * 3


@needs_browser
def test_a_lead_sees_what_others_said_settles_it_and_sees_everybodys_figures(chrome: Browser, open_office: Open) -> None:
    office = open_office(cases=1, double=True)
    for name, key in (("ann", "c"), ("bob", "u")):
        window = at_work(chrome, office, name)
        window.press(key)
        window.shows("Nothing is left for you")
    lead = chrome.window()
    sign_in(lead, office.url, "lead", office.tokens["lead"])
    lead.go(office.url + office.page)
    shown = lead.shows("People were not of one mind")
    assert "ann said books" in shown
    assert "bob was unsure" in shown
    lead.press("c")
    lead.shows("Saved")
    lead.go(office.url + office.page + "/figures")
    shown = lead.shows("Who did what")
    assert "ann 1 0 0" in shown
    assert "bob 0 0 1" in shown
    reviewer = at_work_figures(chrome, office)
    assert "What you did" in reviewer
    assert "bob" not in reviewer


def at_work_figures(chrome: Browser, office: Office) -> str:
    window = chrome.window()
    sign_in(window, office.url, "ann", office.tokens["ann"])
    window.go(office.url + office.page + "/figures")
    return window.shows("What you did")


@needs_browser
def test_hostile_text_is_shown_and_does_nothing(chrome: Browser, open_office: Open) -> None:
    office = open_office(cases=0)
    now = datetime.now(UTC)
    features = {EVIL: EVIL, "list": [EVIL, "\u202e reversed"], "long": "x" * 5000, "empty": "", "gone": None}
    stretch = batch(now, model=office.model, now=now)
    ReviewQueue(office.database).put(stretch, [new_case("p1", EVIL, features=features), new_case("p2")], [EVIL, '"><b>', "tools"])
    window = at_work(chrome, office)
    shown = window.shows("The model says")
    assert shown.count("document.title='owned'") >= 4
    assert "${7*7}{{7*7}}" in shown
    assert "… (5000 characters)" in shown
    window.press("n")
    window.write("b")
    window.until("document.querySelectorAll('[role=option]').length")
    window.go(f"{office.url}{office.page}?note={EVIL}")
    assert "owned" not in window.evaluate("document.title").replace("document.title='owned'", "")
    window.go(f"{office.url}/login?next={EVIL}&note={EVIL}")
    assert window.evaluate("document.querySelectorAll('img, main script, [onerror]').length") == 0
    assert window.complaints() == []


@needs_browser
def test_the_browser_refuses_scripts_that_are_not_ours(chrome: Browser, open_office: Open) -> None:
    window = at_work(chrome, open_office(cases=1))
    window.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\"><style>body{color:red}</style>')"
    )
    window.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title=2'}))")
    eventually("it is refused", lambda: (window.evaluate("1"), len(window.complaints()) >= 3)[1], 30)
    assert "Content Security Policy" in " ".join(window.complaints())
    assert window.evaluate("document.title").startswith("books?")


@needs_browser
def test_a_session_that_ended_leads_to_the_sign_in_and_back_to_the_same_case(chrome: Browser, open_office: Open) -> None:
    office = open_office("--session-hours", "0.0017", cases=2)  # six seconds
    window = at_work(chrome, office)
    case = case_of(window)
    eventually("the session ends", lambda: window.go(office.url + office.page) or "session is over" in window.text(), 30)
    window.shows("Your session is over")
    window.write("ann")
    window.press("Tab")
    window.write(office.tokens["ann"])
    window.press("Enter")
    window.shows("The model says")
    assert case_of(window) == case


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (360, 740)])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_cut_off_and_everything_can_be_read(chrome: Browser, open_office: Open, width: int, height: int, dark: bool) -> None:
    """No scrolling sideways, a name for each control, and WCAG AA contrast of all text, worked out by the browser's own colours."""
    office = open_office(cases=4, features={"merchant": "x" * 300, "a very long name of a feature indeed": "y", "gone": None})
    window = at_work(chrome, office, width=width, height=height)
    if dark:
        window.dark()
    window.press("c")
    window.shows("Saved")
    for path in (office.page, f"{office.page}/figures", "/"):
        window.go(office.url + path)
        assert window.evaluate("document.documentElement.scrollWidth") <= width, path
        assert window.evaluate("document.documentElement.lang") == "en"
        assert window.evaluate("[...document.querySelectorAll('input:not([type=hidden])')].every(each => each.labels.length)")
        assert window.evaluate(_TOO_FAINT) == [], path
    if width < 400:
        window.go(office.url + office.page)
        bottom = window.evaluate("document.querySelector('[value=skip]').getBoundingClientRect().bottom")
        assert bottom < height, "what one does is on the first screen"


_TOO_FAINT = """
(() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const found = channels(getComputedStyle(each).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('main *, header *')].filter(node => !node.closest(':disabled, .sr, [hidden]'))
    .filter(node => [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim()))
    .map(node => { const [a, b] = [light(channels(getComputedStyle(node).color)), light(behind(node))];
      return [node.outerHTML.slice(0, 80), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]; })
    .filter(([, contrast]) => contrast < 4.5);
})()
"""


# -- who comes in ------------------------------------------------------------------------------------------------------------


def test_the_session_is_a_cookie_that_scripts_and_other_sites_cannot_use(open_office: Open) -> None:
    office = open_office()
    signed = Client(office.url).sign_in("ann", office.tokens["ann"])
    (cookie,) = SimpleCookie(signed.headers["Set-Cookie"]).values()
    assert (cookie.key, cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (
        "millrace-review",
        True,
        "lax",
        "/",
        "",
    )


def test_behind_tls_the_cookie_is_for_tls_only(open_office: Open) -> None:
    office = open_office("--public-url", "https://review.example")
    signed = Client(office.url).sign_in("ann", office.tokens["ann"])
    (cookie,) = SimpleCookie(signed.headers["Set-Cookie"]).values()
    assert (cookie.key, cookie["secure"], cookie["path"], cookie["domain"]) == ("__Host-millrace-review", True, "/", "")


def test_with_a_certificate_of_its_own_the_page_speaks_tls_only(open_office: Open, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject, "-days", "2"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    office = open_office("--tls-certificate", str(certificate), "--tls-key", str(key))
    assert office.url.startswith("https://")
    form = urllib.parse.urlencode({"name": "ann", "token": office.tokens["ann"]})
    connection = http.client.HTTPSConnection(
        office.url.partition("//")[2], context=ssl.create_default_context(cafile=str(certificate)), timeout=30
    )
    connection.request("POST", "/login", form, {"Origin": office.url})
    answer = connection.getresponse()
    assert answer.status == 303
    assert (answer.headers["Set-Cookie"] or "").startswith("__Host-millrace-review=")
    assert "Secure" in (answer.headers["Set-Cookie"] or "")
    connection.close()
    with pytest.raises((http.client.HTTPException, OSError)):
        Client(office.url.replace("https", "http")).get("/login")


def test_strangers_see_the_sign_in_only(open_office: Open) -> None:
    office = open_office()
    for path in ("/", office.page, f"{office.page}/figures", "/models/none"):
        sent = Client(office.url).get(path)
        assert (sent.status, sent.headers["Location"]) == (303, f"/login?next={path}")
    for path in (f"{office.page}/review", f"{office.page}/undo", "/logout"):
        assert Client(office.url).post(path, {"seat": "1", "verdict": "confirm"}).headers["Location"].startswith("/login?next=")
    forged = Client(office.url, cookies={"millrace-review": "eyJuYW1lIjoiYW5uIn0.AAAA"})
    assert forged.get("/").status == 303


def test_nobody_is_led_elsewhere_from_the_sign_in(open_office: Open) -> None:
    office = open_office()
    for where in ("//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example", "javascript:alert(1)"):
        sent = Client(office.url).post("/login", {"name": "ann", "token": office.tokens["ann"], "next": where})
        assert sent.headers["Location"] == "/"


def test_wrong_tokens_are_refused_alike_and_soon_have_to_wait(open_office: Open) -> None:
    office = open_office(own=True)
    client = Client(office.url)
    texts = {client.sign_in(name, "wrong").text.replace(name, "X") for name in ("ann", "nobody", "bob")}
    assert len(texts) == 1, "nobody learns who there is"
    assert [client.sign_in("ann", "wrong").status for _ in range(5)] == [401, 401, 401, 401, 429]
    refused = client.sign_in("ann", office.tokens["ann"])
    assert (refused.status, refused.headers["Retry-After"]) == (429, "300"), "the right token has to wait too"
    assert client.sign_in("bob", office.tokens["bob"]).status == 303
    assert [client.sign_in(f"user{number}", "wrong").status for number in range(30)][-1] == 429, (
        "so many names from one address have to wait"
    )
    assert client.sign_in("a\0b", "x").status in (401, 429)
    refusals = [event for event in office.events() if event["event"] == "login refused"]
    assert {event["address"] for event in refusals} == {"127.0.0.1"}
    assert office.tokens["ann"] not in office.server.log.read_text()


def test_a_user_who_is_removed_or_gets_a_new_token_is_out_at_once(open_office: Open) -> None:
    office = open_office(own=True)
    ann, bob = office.client("ann"), office.client("bob")
    users = People(office.workspace / "serving" / "review-users.json")
    users.remove("ann")
    users.add("bob", "reviewer", reset=True)
    assert ann.get("/").status == bob.get("/").status == 303
    assert "over" in bob.get("/").headers["Location"]


def test_forms_that_were_not_opened_here_are_refused(open_office: Open) -> None:
    office = open_office()
    ann, bob = office.client("ann"), office.client("bob")
    form = ann.get(office.page).hidden | {"verdict": "confirm"}
    review = f"{office.page}/review"
    stolen = bob.get(office.page).hidden["form"]
    for wrong in ({"form": ""}, {"form": "x.y"}, {"form": stolen}):
        assert ann.post(review, form | wrong).status == 403
    assert ann.post(review, {name: text for name, text in form.items() if name != "form"}).status == 403
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ):
        assert ann.post(review, form, **headers).status == 403
    assert Client(office.url).sign_in("ann", office.tokens["ann"], Sec_Fetch_Site="cross-site").status == 403
    assert ann.post(review, form, Origin=office.url).status == 303
    assert [event["person"] for event in office.events() if event["event"] == "form refused"] == ["ann"] * 8


def test_a_form_of_another_session_of_the_same_person_is_refused(open_office: Open) -> None:
    office = open_office()
    one, other = office.client("ann"), office.client("ann")
    form = one.get(office.page).hidden | {"verdict": "confirm"}
    assert other.post(f"{office.page}/review", form).status == 403


def test_nobody_reviews_another_persons_case(open_office: Open) -> None:
    office = open_office()
    ann, bob = office.client("ann"), office.client("bob")
    seat = ann.get(office.page).hidden["seat"]
    refused = bob.post(f"{office.page}/review", bob.get(office.page).hidden | {"seat": seat, "verdict": "confirm", "reviewer": "ann"})
    assert refused.status == 409
    assert "no longer yours" in refused.text
    assert office.labels() == []


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"\xff\xfe", 400), (b"a" * 20_000, 413), (b"&".join(b"a=1" for _ in range(100)), 400), (b"no form", 400), (b"", 403)],
)
def test_what_is_no_form_is_refused(open_office: Open, body: bytes, status: int) -> None:
    office = open_office()
    client = office.client("ann")
    assert client.request("POST", f"{office.page}/review", body, {"Content-Type": "application/x-www-form-urlencoded"}).status == status


def test_odd_values_in_a_form_are_refused(open_office: Open) -> None:
    office = open_office()
    client = office.client("ann")
    form = client.get(office.page).hidden
    for wrong in ({"verdict": "undo"}, {"verdict": "x"}, {"seat": "-1", "verdict": "skip"}, {"seat": "1 OR 1", "verdict": "skip"}):
        assert client.post(f"{office.page}/review", form | wrong).status == 400
    assert client.post(f"{office.page}/review", form | {"verdict": "skip", "seat": "9" * 30}).status in (400, 409)
    for label in ("", "  ", "\0\0", "x" * 300):
        assert client.post(f"{office.page}/review", form | {"verdict": "correct", "label": label, "new": label}).status == 400
    assert client.get("/models/none").status == 404
    assert client.get("/models/..%2F..%2Fetc").status == 404


@pytest.mark.parametrize("path", ["/", "/login", "PAGE", "/nothing", "/models/none", "/static/style.css", "/static/none", "/healthz"])
def test_every_answer_forbids_scripts_frames_and_guessing(open_office: Open, path: str) -> None:
    office = open_office()
    headers = office.client("ann").get(path.replace("PAGE", office.page)).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == ("max-age=300" if path == "/static/style.css" else "no-store")
    assert "Server" not in headers


def test_no_page_holds_a_script_or_a_style_of_its_own(open_office: Open) -> None:
    office = open_office()
    client = office.client("ann")
    for path in ("/", "/login", office.page, f"{office.page}/figures"):
        text = client.get(path).text
        assert text.count("<script") <= 1
        assert "style=" not in text
        assert " on" not in text.replace(" on all", "").replace(" one", "").replace(" only", "") or "onclick" not in text


# -- behind a proxy ----------------------------------------------------------------------------------------------------------


def test_a_proxy_with_the_secret_says_who_somebody_is_and_nobody_else_does(open_office: Open, tmp_path: Path) -> None:
    secret = tmp_path / "proxy-secret"
    secret.write_text("a secret that nobody guesses\n")
    office = open_office("--proxy-header", "X-Forwarded-Email", "--proxy-secret-file", str(secret), "--lead", "Boss@example.com")
    known = {"X-Millrace-Proxy-Secret": "a secret that nobody guesses"}
    said = Client(office.url, known | {"X-Forwarded-Email": "Ann@example.com"})
    assert "ann@example.com" in said.get("/").text
    assert "Sign out" not in said.get("/").text
    boss = Client(office.url, known | {"X-Forwarded-Email": "accounts.google.com:boss@example.com"}).get("/").text
    assert "boss@example.com" in boss
    assert ">lead<" in boss
    for wrong in ({}, {"X-Millrace-Proxy-Secret": "wrong"}, {"X-Millrace-Proxy-Secret": ""}):
        assert Client(office.url, wrong | {"X-Forwarded-Email": "ann@example.com"}).get("/").status == 303
    assert Client(office.url, known | {"X-Forwarded-Email": "<b>ann</b>"}).get("/").status == 303
    form = said.get(office.page).hidden | {"verdict": "confirm"}
    assert said.post(f"{office.page}/review", form, Sec_Fetch_Site="cross-site").status == 403
    assert said.post(f"{office.page}/review", form).status == 303
    assert eventually("the label arrives", office.labels, 30)[0][3] == "ann@example.com"


def test_a_proxy_is_known_by_its_address(open_office: Open) -> None:
    office = open_office("--proxy-header", "X-Forwarded-Email", "--proxy-address", "127.0.0.0/8")
    assert "ann@example.com" in Client(office.url, {"X-Forwarded-Email": "ann@example.com"}).get("/").text


def test_who_connects_from_elsewhere_is_no_proxy_whatever_they_write(open_office: Open) -> None:
    office = open_office("--proxy-header", "X-Forwarded-Email", "--proxy-address", "10.0.0.0/8")
    forged = {"X-Forwarded-Email": "ann@example.com", "X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1", "X-Real-IP": "10.0.0.1"}
    assert Client(office.url, forged).get("/").status == 303


# -- nothing is lost ---------------------------------------------------------------------------------------------------------


def test_a_review_outlives_a_server_that_is_killed_before_its_label_left(tmp_path: Path) -> None:
    tokens, page = people(tmp_path, ("ann",)), f"/models/{MODEL}"
    database = database_of(tmp_path)
    fill(database, MODEL, 3)
    with served(tmp_path, "--hold", "3600") as server:
        ann = Client(server.url)
        ann.sign_in("ann", tokens["ann"])
        assert ann.post(f"{page}/review", ann.get(page).hidden | {"verdict": "confirm"}).status == 303
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    assert reading.last_labels(tmp_path / "predictions", MODEL).num_rows == 0
    release(database)
    with served(tmp_path) as server:
        eventually("the label arrives", lambda: reading.last_labels(tmp_path / "predictions", MODEL).num_rows == 1, 30)
        again = Client(server.url)
        again.sign_in("ann", tokens["ann"])
        assert "<strong>1</strong> done today" in again.get(page).text


def release(database: Database) -> None:
    """What was held for an hour may leave now."""
    with database.transaction() as connection:
        connection.execute(update(OUTBOX).values(not_before=datetime.now(UTC)))
    database.close()


def test_labels_wait_while_their_folder_cannot_be_written_and_the_page_goes_on(open_office: Open) -> None:
    (office := open_office(own=True, cases=2)).workspace.joinpath("predictions").write_text("a file where a folder should be")
    ann = office.client("ann")
    assert ann.post(f"{office.page}/review", ann.get(office.page).hidden | {"verdict": "confirm"}).status == 303
    eventually("it is logged", lambda: any(event["event"] == "labels not delivered" for event in office.events()), 30)
    assert ann.post(f"{office.page}/review", ann.get(office.page).hidden | {"verdict": "confirm"}).status == 303
    assert office.figures().undelivered == 2


def test_sigterm_ends_the_server_in_good_order(open_office: Open) -> None:
    server = open_office(own=True).server
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) == 0


def test_everything_that_was_done_is_logged_with_a_name(open_office: Open) -> None:
    office = open_office(cases=2)
    ann = office.client("ann")
    page = ann.get(office.page)
    ann.post(f"{office.page}/review", page.hidden | {"verdict": "confirm"})
    ann.post(f"{office.page}/undo", page.hidden)
    ann.post("/logout", page.hidden)
    done = [(event["event"], event.get("person") or event.get("name")) for event in office.events()]
    assert [each for each in done if each[0] != "labels delivered"] == [
        ("login", "ann"),
        ("review", "ann"),
        ("undo", "ann"),
        ("logout", "ann"),
    ]
    assert json.dumps(office.events()).count("SHOP") == 0, "features stay out of the log"
