"""Leg 1: a launch request → process row and ExperimentLaunched, which commit with the experiment's move to LAUNCHED.

Whether it *can* be launched is checked before, by the API (app/api/launching.py); this says what a launch is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.messages import ids, trace
from app.messages.envelope import Envelope, Subject
from app.messages.events import ExperimentChanged, ExperimentLaunched
from app.messages.placement import Placement
from app.messages.topics import Topics


@dataclass(frozen=True)
class Launch:
    """The process row (CREATED) and the two messages of a launch; ids derive from the experiment, so a launch repeated is the same launch.

    `trace_context`: the request's own span, under which the experiment's skeleton hangs; messages name the skeleton.
    """

    process_id: str
    part: int
    trace_context: str
    snapshot: Mapping[str, Any]
    messages: tuple[Envelope, Envelope]


def launch(*, gateway_id: str, experiment_id: str, from_state: str, snapshot: Mapping[str, Any], traceparent: str, placement: Placement, topics: Topics) -> Launch:
    """`snapshot`: the frozen interface, deployment, host, inputs; its `work_dir` is completed with the process id here. `traceparent`: of the request's own span."""
    process_id = ids.derived("prc", experiment_id, "1")
    part = placement.of_experiment(experiment_id)
    subject = Subject(gateway_id, experiment_id, process_id)

    def message(body: ExperimentLaunched | ExperimentChanged, topic: str) -> Envelope:
        mid = ids.digest(experiment_id, type(body).__name__)
        return Envelope(mid=mid, topic=topic, partition=part, subject=subject, body=body, traceparent=trace.belongs(traceparent, experiment_id))

    host = snapshot.get("host") or {}
    scratch = (host.get("file_systems") or {}).get("SCRATCH")
    whole = dict(snapshot) | ({"work_dir": f"{scratch.rstrip('/')}/airavata/{process_id}"} if scratch else {})
    changed = message(ExperimentChanged(from_state, "LAUNCHED"), topics.events)
    return Launch(process_id, part, traceparent, whole, (message(ExperimentLaunched(), topics.launch), changed))
