"""What executors measure of hosts and jobs. `host` is the compute resource's id: it is what commands take, and two gateways may give one name to different hosts."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from app.workflow import job
from components.task_executors.diary import Did
from observability import metrics
from observability.catalogue import VERBS

if TYPE_CHECKING:
    from components.task_executors.watch import Watched
    from components.task_executors.ways import Ways
    from components.task_executors.workers import Pool

NOT_STARTED = frozenset({job.State.HELD, job.State.SUBMITTED, job.State.QUEUED})


def connections(pool: "Pool", ways: "Ways") -> Iterator[metrics.Reading]:
    """Of one pool, by host. Runs in the thread that is scraped: it only copies."""
    ids = {way.slot: way.compute_resource_id for _, way in list(ways.remembered.values())}
    held = [(each.address, each.job) for each in list(pool.workers)]
    found = Counter((address.slot, "busy" if work else "idle") for address, work in held if address is not None)
    for slot in {slot for slot, _ in found}:
        for state in ("busy", "idle"):
            yield "airavata_ssh_connections", found[slot, state], {"host": ids.get(slot, "unknown"), "state": state}


def looks(hosts: Mapping[str, "Watched"]) -> Iterator[metrics.Reading]:
    for each in list(hosts.values()):
        yield "airavata_job_look_age_seconds", time.monotonic() - each.seen, {"host": each.id}


@metrics.measuring
def did(told: Did) -> None:
    """One remote operation, as its worker told it."""
    if not told.measured:
        return
    seconds, about = (told.end - told.start) / 1e9, told.attributes
    words = told.name.split()
    verb = {"put": "transfer", "get": "transfer"}.get(words[1], words[1]) if words[1] != "exec" else words[2]
    metrics.observe("airavata_ssh_operation_seconds", seconds, verb=verb if verb in VERBS else "other", outcome=about["airavata.outcome"])
    if verb != "transfer":
        return
    where = {"direction": "in" if words[1] == "put" else "out", "scheme": about["airavata.storage"]}
    metrics.count("airavata_checksum_mismatches_total", told.error == "CHECKSUM", **where)
    metrics.count("airavata_staging_resumed_total", bool(about.get("airavata.resumed")), **where)
    if not told.error:
        metrics.observe("airavata_staging_seconds", seconds, direction=where["direction"], scheme=where["scheme"])
        metrics.count("airavata_staged_bytes_total", 0 if about.get("airavata.reused") else about["airavata.bytes"], **where)


@metrics.measuring
def seen(host: str, before: job.State, after: job.State, *, waited_seconds: float, duplicate: bool) -> None:
    """A job was seen in another state, and that is committed. `waited_seconds`: since its submission, without the time it ran."""
    if before in NOT_STARTED and after not in NOT_STARTED | {job.State.UNKNOWN, job.State.LOST}:
        metrics.observe("airavata_job_queue_wait_seconds", max(0.0, waited_seconds), host=host)
    if after is job.State.LOST:
        metrics.count("airavata_jobs_lost_total", host=host)
    if duplicate:
        metrics.count("airavata_duplicates_suppressed_total", where="guard")


@metrics.measuring
def submitted(receipt: Mapping[str, str], *, doubted: bool) -> None:
    """The job's id is stored. `again`: the host found it started before, so this start was turned away."""
    if "again" in receipt:
        metrics.count("airavata_duplicates_suppressed_total", where="receipt")
    if doubted:
        metrics.count("airavata_in_doubt_resolved_total", result="found" if "again" in receipt else "absent")


@metrics.measuring
def unsure(evidence: list[str], *, doubted: bool, failed: bool) -> None:
    """The host did not start it: surely not (`failed`), or nobody knows."""
    if any("NEWER_EPOCH" in each for each in evidence):
        metrics.count("airavata_fenced_total", what="remote_epoch")
    if doubted and failed:
        metrics.count("airavata_in_doubt_resolved_total", result="absent")
