"""`millrace schedules`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from mlpipelines.commands import options, screen
from mlpipelines.errors import ConfigError

_EXAMPLES = """  millrace schedules pipelines/projects/transactions
  millrace schedules my-project --set schedule.cron='0 5 * * mon' --set schedule.time_zone=Europe/London      try one before it is written
  millrace schedules my-project --from 2026-10-20 --json                                                    over a change of clocks"""


def main(argv: Sequence[str]) -> int:
    """Show when a project's schedule fires next."""
    parser = options.make_parser("schedules", "When a project's schedule fires next, on its own clock and in UTC.", _EXAMPLES)
    options.add_project(parser)
    parser.add_argument("--count", type=int, default=10, metavar="N", help="how many firings (default 10)")
    parser.add_argument("--from", dest="start", default="", metavar="TIME", help="after this time (ISO 8601; default: now)")
    options.add_json(parser)
    arguments = parser.parse_args(argv)
    from mlpipelines.moments import moments
    from mlpipelines.triggers.schedule import check, next_firings

    project = options.project_of(arguments)
    schedule, origin = project.schedule, str(arguments.project_dir / "project.yaml")
    if schedule is None:
        raise ConfigError(f"{origin} has no `schedule`. Write one: schedule: {{cron: '0 5 * * mon', time_zone: Europe/London}}")
    check(schedule, origin)
    start, _ = moments(arguments.start, "")
    found = next_firings(schedule, start.timestamp() if start else time.time(), arguments.count)
    zone = ZoneInfo(schedule.time_zone)
    if arguments.json:
        firings = [datetime.fromtimestamp(at, zone).isoformat() for at in found]
        screen.print_json({"project": project.name, **schedule.model_dump(), "firings": firings})
        return 0
    rows = [
        {
            schedule.time_zone: datetime.fromtimestamp(at, zone).strftime("%a %Y-%m-%d %H:%M %Z"),
            "UTC ": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M"),
        }
        for at in found
    ]
    screen.print_table(f"{project.name}: {schedule.cron}", rows)
    told = {"skip": "left out", "run-once": "made up for by one training"}
    screen.console().print(f"Missed firings are {told[schedule.missed]}; those during a training are {told[schedule.overlapping]}.")
    return 0
