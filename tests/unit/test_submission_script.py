"""The job script and the names in the work directory: what a user gives reaches argv, and nothing else."""

import shlex
import subprocess
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.messages import trace
from components.task_executors.layout import input_files
from components.task_executors.submission import render
from tests.support.remote_orders import a_snapshot, an_order


def an_input(name: str, kind: str = "STRING", **parts: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "order": 1, "on_command_line": True, "argument": None, **parts}


def argv(inputs: list[dict[str, Any]], values: dict[str, Any], outputs: list[dict[str, Any]] | None = None) -> list[str]:
    return render.command(a_snapshot(program="/bin/p", interface={"inputs": inputs, "outputs": outputs or []}, inputs=values))


def test_inputs_come_in_their_order_behind_their_flags() -> None:
    inputs = [
        an_input("b", order=2),
        an_input("n", "INTEGER", order=1, argument="-n"),
        an_input("e", "FLOAT", order=3, argument="--e="),
        an_input("absent", order=4),
    ]
    assert argv(inputs, {"b": "x y", "n": 3, "e": 0.5}) == ["/bin/p", "-n", "3", "x y", "--e=0.5"]


def test_files_are_named_as_they_are_staged() -> None:
    inputs = [
        an_input("seq", "URI", override_filename="globins.sto"),
        an_input("more", "URI_COLLECTION", order=2, argument="-i"),
        an_input("quiet", "URI", on_command_line=False),
    ]
    values = {"seq": {"uri": "storage://sto_1/a/b.sto", "sha256": "ab"}, "more": ["storage://sto_1/x/b%20c", "storage://sto_1/y/b%20c"], "quiet": "data:,x"}
    assert argv(inputs, values) == ["/bin/p", "globins.sto", "-i", "b c", "-i", "more-b c"]


def test_outputs_named_on_the_command_line_come_before_the_operands_if_they_have_a_flag() -> None:
    table = {"name": "table", "type": "URI", "on_command_line": True, "argument": "--tblout", "search_glob": "hits.tbl"}
    plain = {"name": "plain", "type": "URI", "on_command_line": True, "search_glob": "*.out"}
    assert argv([an_input("a")], {"a": "x"}, [table, plain]) == ["/bin/p", "--tblout", "hits.tbl", "x", "plain"]


def test_names_of_staged_files_are_safe_and_distinct() -> None:
    uris = [
        "storage://s/../../etc/passwd",
        "storage://s/.bashrc",
        "storage://s/-rf",
        "storage://s/stdout",
        "storage://s/a%2Fb",
        "storage://s/",
        "storage://s/x%0Ay",
    ]
    found = input_files(a_snapshot(interface={"inputs": [an_input("in", "URI_COLLECTION")]}, inputs={"in": uris}))["in"]
    names = [each.name for each in found]
    assert names == ["passwd", "bashrc", "rf", "in-stdout", "a_b", "s", "x_y"]
    assert [each.uri for each in found] == uris


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=3))
def test_any_value_reaches_argv_byte_for_byte(values: list[str]) -> None:
    inputs = [an_input(f"i{n}", order=n) for n in range(len(values))]
    snapshot = a_snapshot(program="/bin/p", interface={"inputs": inputs}, inputs={f"i{n}": each for n, each in enumerate(values)})
    text = render.script(an_order(snapshot=snapshot)).decode()
    command = text.split("/bin/p", 1)[1].rsplit(" >stdout </dev/null\n", 1)[0]
    assert shlex.split(command) == values


def test_the_script_is_posix_and_tells_the_program_who_it_is() -> None:
    deployment = {
        "executable_path": "/bin/p",
        "module_load_commands": ["module load x"],
        "pre_job_commands": ["a\nb"],
        "post_job_commands": ["c"],
        "environment": {"A": "it's"},
    }
    snapshot = a_snapshot(
        deployment=deployment, scheduling={"threads_per_process": 4}, interface={"inputs": [an_input("t", standard_input=True)]}, inputs={"t": "x'y"}
    )
    text = render.script(an_order(snapshot=snapshot))
    assert subprocess.run(["dash", "-n"], input=text, check=False).returncode == 0
    lines = text.decode().splitlines()
    assert lines[0] == "#!/bin/sh -l"
    assert {"export AIRAVATA_TOKEN=att_1", "export OMP_NUM_THREADS=4", "export A='it'\"'\"'s'"} <= set(lines)
    assert f"export TRACEPARENT={trace.skeleton(an_order().traceparent, 'job', 'att_1')}" in lines
    assert "printf '%s' 'x'\"'\"'y' | /bin/p >stdout" in lines


def test_a_script_derives_from_its_order_alone() -> None:
    assert render.script(an_order()) == render.script(an_order(epoch=5))
