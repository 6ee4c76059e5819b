"""From rows to what a collector gets: the skeleton of a run that has ended, sampled or kept, as its spans arrive."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeAlias

import pytest

from app.messages import trace
from components.task_scheduler.skeletons import readable
from observability import tracing
from tests.support.builders import NOON
from tests.support.otlp_receiver import Span, receiver

Arrived: TypeAlias = Callable[[str, str], dict[str, list[Span]]]

CONTEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
TASK = {
    "id": "tsk_a", "name": "a", "type": "JOB_SUBMISSION", "state": "FAILED", "attempt": 2, "doubt_since": None, "reason": "it failed", "failure": {"code": "LOST_JOB"}, "finished_at": NOON + timedelta(seconds=5),
}  # fmt: skip


def a_run(flags: str, keep: str) -> dict[str, Any]:
    ends = {"launched_at": NOON, "finished_at": NOON + timedelta(seconds=6)}
    return {"id": "exp_1", "gateway_id": "gw_1", "state": "FAILED", "outcome": "LOST_JOB", "process_id": "prc_1", "trace_context": CONTEXT + flags, "trace_keep": keep, **ends}


def an_attempt(number: int) -> dict[str, Any]:
    begun = NOON + timedelta(seconds=number)
    return {
        "id": f"att_{number}", "task_id": "tsk_a", "process_id": "prc_1", "number": number, "state": "FAILED", "epoch": 1, "created_at": begun, "started_at": begun,
        "finished_at": begun + timedelta(milliseconds=500), "outcome": {"code": "LOST_JOB", "message": "The job is lost."},
    }  # fmt: skip


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arrived]:
    """(flags, keep) → spans by name, as a collector got them."""
    monkeypatch.setattr(tracing, "_process", tracing._Process())
    with receiver() as collector:
        tracing.begin(collector.url, component="scheduler", name="i", version="1", environment="test", ratio=1.0, delay_seconds=60.0)

        def sent(flags: str, keep: str) -> dict[str, list[Span]]:
            collector.spans.clear()
            assert tracing.export(readable(a_run(flags, keep), [TASK], [an_attempt(1), an_attempt(2)], []))
            return {name: [each for each in collector.spans if each.name == name] for name in sorted({each.name for each in collector.spans})}

        yield sent
        tracing.close()


def test_a_failed_run_arrives_with_its_attempts_its_wait_and_the_reason_why_it_is_kept(arrived: Arrived) -> None:
    spans = arrived("01", "failed")
    assert list(spans) == ["experiment run", "task JOB_SUBMISSION", "wait RETRY_WAIT"]
    (run,), (first, second) = spans["experiment run"], spans["task JOB_SUBMISSION"]
    assert (run.id, run.parent, run.error, run.attributes["airavata.keep"], run.attributes["error.type"]) == (trace.span_id("experiment", "exp_1"), CONTEXT[36:52], True, "failed", "LOST_JOB")
    assert {first.parent, second.parent, spans["wait RETRY_WAIT"][0].parent} == {run.id}
    assert second.links == ((CONTEXT[3:35], first.id),)
    assert (run.start % 10**9, run.end - run.start) == (0, 6 * 10**9)
    assert {each.service for found in spans.values() for each in found} == {tracing.EXPERIMENTS}


def test_one_that_was_not_sampled_has_no_parent_since_its_request_has_no_span(arrived: Arrived) -> None:
    (run,) = arrived("00", "failed")["experiment run"]
    assert (run.parent, run.trace) == ("", CONTEXT[3:35])


def test_made_twice_it_is_identical(arrived: Arrived) -> None:
    assert arrived("01", "failed") == arrived("01", "failed")
