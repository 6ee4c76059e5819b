"""PURE. Submission, at most one execution per token: commit the intent, run the helper, commit the receipt (docs: remote-submission protocol, FORK back end).

The helper on the host (host/submit.sh) decides under its lock; these steps believe only its framed answer. Whatever is ambiguous is asked of the host once more and then
stays IN_DOUBT: the scheduler sends the same token again with a higher epoch, and the helper adopts or submits. A definite refusal is the attempt's outcome and ends the job
with it, in one transaction: a job that had failed before its attempt would be met again by the next epoch.
"""

import hashlib
from collections.abc import Generator
from typing import Any

from app.workflow.execution import Failed, InDoubt, Outcome, Submitted
from components.task_executors import host
from components.task_executors.layout import control_dir, scratch, work_dir
from components.task_executors.plugin import Commit, Operation, OperationFailed, Steps, WorkOrder, failed
from components.task_executors.remote_host import host_fault
from components.task_executors.submission import render
from components.task_executors.submission.watch import look, receipt_of

SUBMIT_SECONDS = 45.0  # The helper's own waits end after 20 s for the lock and 10 s for the receipt.
Asked = Generator[Operation, Any, Outcome]


def steps(order: WorkOrder) -> Steps:
    kind = (order.snapshot["host"].get("job_manager") or {}).get("type", "FORK")
    if kind != "FORK":
        return Failed("LAUNCH_FAILURE", f"The host's job manager is {kind}; this release starts jobs on hosts of type FORK only.")
    text = render.script(order)
    yield Commit("SUBMITTING", intent(order, text))
    try:
        words = (yield from submit(order, text)).split(" ", 1)
    except OperationFailed as fault:
        return (yield from unanswered(order, fault))
    match words:
        case ["RECEIPT", receipt]:
            return (yield from adopt(order, receipt))
        case ["ABSENT", why]:
            return (yield from absent(order, why))
        case ["REFUSED", "CANCELLED"]:
            return Failed("CANCELED_BY_USER", "The job was cancelled before it started.")
        case _:
            return (yield from ask(order, f"the host answered: {' '.join(words)[:300]}"))


def intent(order: WorkOrder, text: bytes) -> dict[str, Any]:
    root = scratch(order.snapshot)
    defaults = order.snapshot["deployment"].get("defaults") or {}
    wall_time = (order.snapshot.get("scheduling") or {}).get("wall_time_seconds") or defaults.get("wall_time_seconds") or 0
    document = {"root": root, "control": control_dir(root, order.token), "epoch": order.epoch}
    return {"script_sha256": render.sha256(text), "work_dir": work_dir(order.snapshot), "wall_time_seconds": wall_time, "document": document}


def submit(order: WorkOrder, text: bytes) -> Generator[Operation, Any, str]:
    """The helper's one answer; raises if there is none."""
    root, nonce = scratch(order.snapshot), nonce_of(order, "submit")
    parameters = (control_dir(root, order.token), str(order.epoch), nonce, render.sha256(text), work_dir(order.snapshot), host.path(root, "job"))
    ran = yield from host.helper(root, "submit", *parameters, stdin=text, timeout_seconds=SUBMIT_SECONDS, needs=("job",))
    answers = host.framed(ran.stdout, nonce)
    if len(answers) != 1:
        raise OperationFailed(
            "HOST_COMMAND", "The host gave no readable answer.", certain=False, raw=f"exit {ran.exit_status}: {ran.stderr.decode(errors='replace')[-300:]}"
        )
    return answers[0]


def nonce_of(order: WorkOrder, purpose: str) -> str:
    return hashlib.sha256(f"{purpose}/{order.token}/{order.epoch}".encode()).hexdigest()[:32]


def adopt(order: WorkOrder, receipt: str) -> Asked:
    """The job exists, started now or before: its id is stored, and from then on the watcher owns it."""
    fields = receipt_of(receipt)
    if not fields:
        return (yield from doubt("The receipt of the job on its host is broken or forged, and is not believed.", (f"receipt: refused, {receipt[:200]}",)))
    job_id = f"{fields['pid']}@{fields['boot']}"
    yield Commit("SUBMITTED", {"scheduler_job_id": job_id, "document": {**intent(order, b"")["document"], "receipt": fields}})
    return Submitted(job_id)


def unanswered(order: WorkOrder, fault: OperationFailed) -> Asked:
    """Surely nothing was sent, now; but only in the first epoch also nothing before."""
    if fault.certain and order.epoch == 1:
        return failed(fault, "LAUNCH_FAILURE")
    return (yield from ask(order, f"submit: {fault.code} {fault.message}"))


def absent(order: WorkOrder, why: str) -> Asked:
    """Proved: nothing runs and nothing can. What another try on the same host may cure is tried with the same token."""
    fault = host_fault(why, f"The job could not be started: {why}")
    if fault.code != "HOST_COMMAND" or why.startswith("there is no directory"):
        return failed(fault, "LAUNCH_FAILURE")
    return (yield from doubt(f"The job did not start yet and is tried again: {why}", (f"submit: ABSENT, {why}",)))


def ask(order: WorkOrder, said: str) -> Asked:
    """Receipt, guard, live process, exit file, in this order, by one look."""
    root = scratch(order.snapshot)
    try:
        seen = (yield from look(root, {order.token: control_dir(root, order.token)}, nonce_of(order, "look"))).get(order.token)
    except OperationFailed as fault:
        return (yield from doubt("It is not known whether the job was started; the host does not answer.", (said, f"look: {fault.code} {fault.message}")))
    if seen is not None and seen.receipt:
        return (yield from adopt(order, seen.receipt))
    answers = seen.answers if seen is not None else ("look: no answer for this token",)
    return (yield from doubt("It is not known whether the job was started; the host is asked again.", (said, *answers)))


def doubt(message: str, found: tuple[str, ...]) -> Asked:
    yield Commit("IN_DOUBT", {"reason": message, "evidence": list(found)})
    return InDoubt(message, found)
