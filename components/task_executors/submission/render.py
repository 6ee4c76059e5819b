"""PURE. The job script from the snapshot: environment, modules, pre-job commands, the program with its arguments, post-job commands.

Shell text comes only from the deployment (a gateway administrator's); every value of a user passes through `shlex.quote` and reaches argv byte for byte.
stdout is the program's alone; everything else that speaks goes to stderr.
"""

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from app.messages import trace
from components.task_executors.layout import STDERR, STDOUT, Snapshot, input_files, ordered_inputs, work_dir
from components.task_executors.plugin import WorkOrder

quote = shlex.quote


def script(order: WorkOrder) -> bytes:
    """The whole script. Its first line tells the wrapper (host/job.sh) whether it wants a login shell: `module` is a function of one."""
    deployment, snapshot = order.snapshot["deployment"], order.snapshot
    modules = deployment.get("module_load_commands") or ()
    lines = [
        "#!/bin/sh -l" if modules else "#!/bin/sh",
        f"cd {quote(work_dir(snapshot))} || exit 97",
        f"exec 2>{STDERR} >&2",
        *_exports(order),
        *_blocks(modules, "module command"),
        *_library_paths(deployment.get("library_paths") or {}),
        *_blocks(deployment.get("pre_job_commands") or (), "pre-job command"),
        f"{_standard_input(snapshot)[0]}{' '.join(map(quote, command(snapshot)))} >{STDOUT}{_standard_input(snapshot)[1]}",
        "status=$?",
    ]
    for n, text in enumerate(deployment.get("post_job_commands") or (), 1):
        lines += [
            "{",
            text,
            "} || {",
            "  post=$?",
            f'  echo "airavata: post-job command {n} ended with $post" >&2',
            '  [ "$status" -ne 0 ] || status=$post',
            "}",
        ]
    return "\n".join([*lines, 'exit "$status"', ""]).encode()


def sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def command(snapshot: Snapshot) -> list[str]:
    """The program's argv: outputs behind a flag first (options come before operands), inputs in their order, then other outputs that are named on the command line."""
    deployment = snapshot["deployment"]
    outputs = [each for each in snapshot["interface"].get("outputs") or () if each.get("on_command_line")]
    argv = [*_launcher(snapshot), deployment["executable_path"]]
    for each in (each for each in outputs if each.get("argument")):
        argv += _argument(each, _output_name(each))
    files = input_files(snapshot)
    for declared in ordered_inputs(snapshot):
        if declared.get("on_command_line") and not declared.get("standard_input"):
            for value in _values(snapshot, declared, files):
                argv += _argument(declared, value)
    return argv + [_output_name(each) for each in outputs if not each.get("argument")]


def _launcher(snapshot: Snapshot) -> tuple[str, ...]:
    if snapshot["deployment"].get("parallelism", "SERIAL") not in {"MPI", "OPENMP_MPI"}:
        return ()
    scheduling = snapshot.get("scheduling") or {}
    return "mpirun", "-np", str((scheduling.get("node_count") or 1) * (scheduling.get("cpu_count") or 1))


def _argument(declared: Mapping[str, Any], value: str) -> list[str]:
    flag = declared.get("argument")
    if not flag:
        return [value]
    return [flag + value] if flag.endswith("=") else [flag, value]


def _values(snapshot: Snapshot, declared: Mapping[str, Any], files: Mapping[str, Any]) -> list[str]:
    if declared["name"] in files:
        return [each.name for each in files[declared["name"]]]
    value = (snapshot.get("inputs") or {}).get(declared["name"], declared.get("default"))
    if value is None:
        return []
    return [str(each["uri"] if isinstance(each, Mapping) else each) for each in (value if isinstance(value, list | tuple) else (value,))]


def _output_name(declared: Mapping[str, Any]) -> str:
    glob = declared.get("search_glob") or declared["name"]
    return str(declared["name"] if any(each in glob for each in "*?[") else glob)


def _standard_input(snapshot: Snapshot) -> tuple[str, str]:
    """What stands before and behind the program so that it reads the input meant for its stdin."""
    files = input_files(snapshot)
    for declared in ordered_inputs(snapshot):
        if declared.get("standard_input"):
            if declared["name"] in files:
                return "", f" <{quote(files[declared['name']][0].name)}"
            if values := _values(snapshot, declared, files):
                return f"printf '%s' {quote(values[0])} | ", ""
    return "", " </dev/null"


def _exports(order: WorkOrder) -> Iterator[str]:
    subject = order.subject
    names = {"TOKEN": order.token, "EXPERIMENT": subject.experiment, "PROCESS": subject.process, "TASK": subject.task, "ATTEMPT": str(order.number)}
    told = {f"AIRAVATA_{key}": value for key, value in names.items()}
    if order.traceparent:
        told["TRACEPARENT"] = trace.skeleton(order.traceparent, "job", order.token)  # The job's own span: an instrumented program joins the same trace.
    if threads := (order.snapshot.get("scheduling") or {}).get("threads_per_process"):
        told["OMP_NUM_THREADS"] = str(threads)
    for key, value in {**told, **(order.snapshot["deployment"].get("environment") or {})}.items():
        yield f"export {key}={quote(str(value))}"


def _library_paths(paths: Mapping[str, Any]) -> Iterator[str]:
    if prepend := paths.get("prepend"):
        yield f"export LD_LIBRARY_PATH={quote(':'.join(prepend))}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
    if append := paths.get("append"):
        yield f'export LD_LIBRARY_PATH="${{LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}}"{quote(":".join(append))}'


def _blocks(commands: Any, what: str) -> Iterator[str]:
    """Commands that must succeed before the program starts; what they export or where they go, it inherits."""
    for n, text in enumerate(commands, 1):
        yield "\n".join(
            ["{", text, "} || {", "  status=$?", f'  echo "airavata: {what} {n} ended with $status, the program was not started" >&2', '  exit "$status"', "}"]
        )
