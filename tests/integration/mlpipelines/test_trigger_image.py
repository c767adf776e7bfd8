"""What the trigger's image brings is enough for all that the trigger does there: its modules, a canary's judgement, the registry and the audit log."""

from __future__ import annotations

from pathlib import Path

from image_libraries import run_with_libraries_of

EVERY_MODULE = """
import pkgutil
from importlib import import_module
import mlpipelines.triggers
import mlserving.rollout

for package in (mlpipelines.triggers, mlserving.rollout):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        import_module(module.name)
for command in ("trigger", "why", "freeze", "schedules"):
    import_module("mlpipelines.commands." + command)
"""
A_ROLLOUT = """
from pathlib import Path
from mlpipelines.triggers.places import releases
from mlserving.errors import Unavailable
from mlserving.rollout.compare import compare
from mlserving.rollout.observation import Histogram, Seen
from mlserving.rollout.plan import Limits

room = releases(Path("."), "trigger", Path("rollouts.yaml"))("cards")
answered = Histogram(edges=(0.1, 1.0), counts=(900.0, 100.0))
bad = Seen(version=2, requests=1000, errors=300, latency=answered, classes={"in": 500, "out": 500})
good = Seen(version=1, requests=1000, errors=0, latency=answered, classes={"in": 500, "out": 500})
print([str(check.verdict) for check in compare(bad, good, Limits(), 0.05)])
room.audit.append("trigger", "rollout.start", "cards")
print([entry.fact.action for entry in room.audit.entries()])
try:
    room.registry.version_of_run("cards", "a-run")
except Unavailable as error:
    print(error)
"""


def test_every_module_of_the_trigger_and_of_rollouts_is_imported() -> None:
    done = run_with_libraries_of("trigger", EVERY_MODULE)
    assert done.returncode == 0, done.stderr


def test_a_canary_is_judged_logged_and_looked_up(tmp_path: Path) -> None:
    (tmp_path / "rollouts.yaml").write_text("prometheus: http://127.0.0.1:9\nreleases: {cards: {release: cards}}\n")
    set_up = f"import os; os.chdir({str(tmp_path)!r}); os.environ.update(MLFLOW_TRACKING_URI='http://127.0.0.1:9', MLFLOW_HTTP_REQUEST_MAX_RETRIES='0')\n"
    done = run_with_libraries_of("trigger", set_up + A_ROLLOUT)
    assert done.returncode == 0, done.stderr
    judged, logged, looked = done.stdout.splitlines()
    assert judged.startswith("['worse'")
    assert logged == "['rollout.start']"
    assert looked.startswith("The registry at http://127.0.0.1:9 did not answer")


def test_what_the_image_leaves_out_is_missing_here_too() -> None:
    done = run_with_libraries_of("trigger", "import tensorflow")
    assert "No module named 'tensorflow'" in done.stderr
    done = run_with_libraries_of("trigger", "import google.auth, google.cloud.storage; import google.cloud.bigquery")
    assert "No module named 'google.cloud.bigquery'" in done.stderr
