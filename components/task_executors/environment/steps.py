"""PURE. ENV_SETUP makes the work directory (0700), shows that scratch can be written, and stages the helpers; ENV_CLEANUP removes the work directory and nothing else."""

from app.workflow.execution import Failed, Succeeded
from components.task_executors import host
from components.task_executors.layout import scratch, work_dir
from components.task_executors.plugin import Steps, WorkOrder, failed
from components.task_executors.remote_host import host_fault

CODE = "LAUNCH_FAILURE"


def set_up(order: WorkOrder) -> Steps:
    root, directory = scratch(order.snapshot), work_dir(order.snapshot)
    if not below(root, directory):
        return Failed(CODE, f"The work directory is not below the host's scratch directory {root}.", raw_message=directory)
    scripts = ("submit", "job", "look", "kill")
    ran = yield from host.helper(root, "prepare", root, directory, *(host.path(root, each) for each in scripts), needs=scripts)
    if ran.exit_status != 0:
        return failed(host_fault(ran.stderr.decode(errors="replace")[-500:], "The work directory could not be made on the compute host."), CODE)
    return Succeeded({"work_dir": directory})


def clean_up(order: WorkOrder) -> Steps:
    """`strategy` ONLY_FAILED does nothing unless the task's model says that something `failed`."""
    root, directory = scratch(order.snapshot), work_dir(order.snapshot)
    if order.model.get("strategy") == "ONLY_FAILED" and not order.model.get("failed"):
        return Succeeded({"removed": False})
    if not below(root, directory):
        return Failed("INTERNAL", "The work directory is not below the host's scratch directory; nothing was removed.", raw_message=directory)
    ran = yield from host.helper(root, "clean", root, directory, timeout_seconds=300.0)
    if ran.exit_status != 0:
        return failed(host_fault(ran.stderr.decode(errors="replace")[-500:], "The work directory could not be removed from the compute host."), "INTERNAL")
    return Succeeded({"removed": True})


def below(root: str, directory: str) -> bool:
    """By its words; the helpers look at what the words mean on the host."""
    name = directory.removeprefix(f"{root}/airavata/")
    return root.startswith("/") and name != directory and bool(name) and "/" not in name and name not in {".", ".."}
