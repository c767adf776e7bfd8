"""What is kept in mind of what has run."""

from gpuqueue.cluster.forecast import MOST, Forecast
from gpuqueue.history import Past


def past(number: int) -> Past:
    moment = float(number)
    return Past(
        queue="red", lane="l4", namespace="red", name=f"p{number}", family="red/train", gpus=1, since=moment, at=moment, ended=moment + 60
    )


def test_only_the_latest_pasts_are_kept_in_mind() -> None:
    forecast = Forecast()
    forecast.learn(past(number) for number in range(MOST))
    forecast.learn([past(MOST), past(MOST + 1)])
    assert (len(forecast.pasts), forecast.pasts[0].name, forecast.pasts[-1].name) == (MOST, "p2", f"p{MOST + 1}")


def test_what_the_leader_wrote_replaces_what_was_known() -> None:
    forecast = Forecast()
    forecast.learn([past(1)])
    forecast.learn_anew([past(2), past(3)])
    assert [each.name for each in forecast.pasts] == ["p2", "p3"]
