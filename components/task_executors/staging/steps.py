"""PURE. What is staged where: inputs into the work directory, declared outputs back to the output storage, also those of a program that failed."""

import hashlib
from collections.abc import Generator, Mapping
from typing import Any

from app.workflow.execution import Failed, StagedOutput, Succeeded
from components.task_executors.layout import STDERR, STDOUT, input_files, work_dir
from components.task_executors.plugin import FOR_GOOD, Exec, Operation, OperationFailed, Steps, Transfer, WorkOrder, failed

IN_FAILED, OUT_FAILED = "STAGING_IN_FAILED", "STAGING_OUT_FAILED"
FILES_MAX = 1000
NEVER = FOR_GOOD | {"DECLARED_CHECKSUM", "STORAGE_DENIED"}
_LIST = (  # Plain files that fit a pattern below the work directory, NUL after each; links lead nowhere.
    'cd -- "$1" || exit 98; here=$(pwd -P); IFS=; for each in $2; do [ -f "$each" ] && [ ! -h "$each" ] || continue; '
    'case $(readlink -f -- "$each") in "$here"/*) printf "%s\\0" "$each" ;; esac; done'
)


def ingress(order: WorkOrder) -> Steps:
    """Every staged input, under its safe name."""
    files, total = 0, 0
    for name, wanted in input_files(order.snapshot).items():
        for each in wanted:
            try:
                done = yield Transfer(each.uri, f"host:{work_dir(order.snapshot)}/{each.name}", each.sha256)
            except OperationFailed as fault:
                return _input_failed(name, fault)
            files, total = files + 1, total + done.size_bytes
    return Succeeded({"files": files, "bytes": total})


def _input_failed(name: str, fault: OperationFailed) -> Failed:
    outcome = failed(fault, IN_FAILED)
    return Failed(IN_FAILED, f"Input {name}: {fault.message}", outcome.raw_message, outcome.transient and fault.code not in NEVER, outcome.condition)


def egress(order: WorkOrder) -> Steps:
    """Every declared output; what is missing is told with the rest."""
    found: list[StagedOutput] = []
    missing, total = [], 0
    for declared in order.snapshot["interface"].get("outputs") or ():
        try:
            staged = yield from _output(order, declared)
        except OperationFailed as fault:
            outcome = failed(fault, OUT_FAILED)
            found.append(StagedOutput(declared["name"], "FAILED"))
            return Failed(OUT_FAILED, f"Output {declared['name']}: {fault.message}", outcome.raw_message, outcome.transient, outcome.condition, outputs=tuple(found))
        found.append(staged)
        total += staged.size_bytes or 0
        if staged.state == "MISSING" and declared.get("required"):
            missing.append(declared["name"])
    if missing:
        return Failed(OUT_FAILED, f"The program left no {_said(missing)}, which the interface requires.", outputs=tuple(found))
    return Succeeded({"files": sum(each.state == "STAGED" for each in found), "bytes": total}, tuple(found))


def _said(names: list[str]) -> str:
    return f"output {names[0]}" if len(names) == 1 else "outputs " + ", ".join(names)


def _output(order: WorkOrder, declared: Mapping[str, Any]) -> Generator[Operation, Any, StagedOutput]:
    name, kind = declared["name"], declared["type"]
    storage = order.snapshot["output_storage"]["id"]
    base = f"storage://{storage}/{order.subject.experiment}/{name}"
    if kind in {"STDOUT", "STDERR"}:
        files = [STDOUT if kind == "STDOUT" else STDERR]
    elif kind in {"URI", "URI_COLLECTION"}:
        files = yield from _matching(order, str(declared.get("search_glob") or name))
    else:
        files = []
    staged = []
    for each in files if kind == "URI_COLLECTION" else files[:1]:
        try:
            done = yield Transfer(f"host:{work_dir(order.snapshot)}/{each}", f"{base}/{each}")
        except OperationFailed as fault:
            if fault.code != "NOT_FOUND":
                raise
        else:
            staged.append((each, done))
    if not staged:
        return StagedOutput(name, "MISSING")
    if kind != "URI_COLLECTION":
        file, done = staged[0]
        return StagedOutput(name, "STAGED", f"{base}/{file}", done.size_bytes, done.sha256)
    lines = "".join(f"{done.sha256}  {file}\n" for file, done in staged)  # As sha256sum prints them: the collection's own hash is over these lines.
    return StagedOutput(name, "STAGED", base, sum(done.size_bytes for _, done in staged), hashlib.sha256(lines.encode()).hexdigest())


def _matching(order: WorkOrder, pattern: str) -> Generator[Operation, Any, list[str]]:
    ran = yield Exec(("sh", "-c", _LIST, "sh", work_dir(order.snapshot), pattern))
    names = sorted(each.decode(errors="replace") for each in ran.stdout.split(b"\0") if each)
    if len(names) > FILES_MAX:
        raise OperationFailed("NOT_SAFE", f"{len(names)} files fit {pattern}; at most {FILES_MAX} are staged.", certain=True)
    return names
