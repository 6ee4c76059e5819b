"""What the benchmark makes of its turns: the pace of the machine cancels out, what watching costs stays."""

from tests.bench.telemetry import compared


def a_turn(pace: float, watching: float) -> dict[str, float]:
    return {"api-0": pace * (2 + watching), "relay-0": pace * 2, "mysql": pace * 4, "kafka": pace * 1.5}


def test_a_slow_turn_says_nothing_about_what_runs_in_it() -> None:
    found = compared({"off": [a_turn(pace, 0) for pace in (1, 1, 1.3)], "0": [a_turn(pace, 0) for pace in (1.5, 1.2, 1)], "1": [a_turn(pace, 0.5) for pace in (0.7, 1, 1)]})
    assert found["percent"] == {"0": 0.0, "1": round(100 * 0.5 / (4 + 4 + 1.5), 2)}
    assert found["cpu_ms_per_task"] == {"off": 9.5, "0": 9.5, "1": 10.0}
