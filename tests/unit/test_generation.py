"""Leg 2, pure: plans."""

import pytest

from app.messages.events import ExperimentLaunched, ProcessPlanned
from app.workflow import generation, process
from app.workflow.planners import Plan, PlannedEdge, PlannedTask, PlanRefused
from app.workflow.planners.batch_application import PLANNER as BATCH
from components.task_executors.noop.planner import PLANNER as SHAPE
from tests.support.builders import TOPICS, a_message


def generate(snapshot, state=process.State.CREATED):
    message = a_message(ExperimentLaunched())
    return generation.decide(message, state=state, part=7, trace_context="", snapshot=snapshot, planners={"shape": SHAPE, "batch-application": BATCH}, topics=TOPICS)


def shape(edges, behaviour=""):
    return {"interface": {"planner": "shape"}, "inputs": {"edges": edges, "behaviour": behaviour}}


def test_a_shape_becomes_tasks_that_know_for_how_many_they_wait():
    made = generate(shape("a>b a>c b>d c>d", "b:sleep_ms=500 c:fail=2"))
    assert [(t.name, t.waiting_for, t.model) for t in made.tasks] == [("a", 0, {}), ("b", 1, {"sleep_ms": 500}), ("c", 1, {"fail": 2}), ("d", 2, {})]
    assert made.validated
    assert len(made.edges) == 4


def test_the_batch_application_brings_outputs_back_also_from_a_failed_job():
    plan = BATCH.plan({"cleanup_strategy": "ALWAYS"})
    assert PlannedEdge("job-submission", "egress-staging", "ENDED") in plan.edges
    assert PlannedEdge("egress-staging", "env-cleanup", "ENDED") in plan.edges
    assert len(BATCH.plan({"cleanup_strategy": "NONE"}).tasks) == 4


@pytest.mark.parametrize("edges", ["", "a>a", "a>b b>a", "A>b", "a>b a>b", "a>b a=b", " ".join(f"t{i}" for i in range(1001))])
def test_a_bad_shape_travels_as_the_fault(edges):
    made = generate(shape(edges))
    assert not made.validated
    assert [m.body.fault is None for m in made.messages if isinstance(m.body, ProcessPlanned)] == [False]


def test_a_thousand_tasks_are_planned():
    assert len(generate(shape(" ".join(f"t{i}>t{i + 1}" for i in range(999)))).tasks) == 1000


def test_it_plans_only_from_created():
    assert generate(shape("a"), state=process.State.VALIDATED).messages == []


def test_an_edge_to_nobody_is_refused():
    with pytest.raises(PlanRefused):
        generation.check(Plan((PlannedTask("a", "NOOP"),), (PlannedEdge("a", "b"),)))
