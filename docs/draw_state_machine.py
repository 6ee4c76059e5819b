"""Draws docs/state_machine.md from the tables in app/workflow. `python docs/draw_state_machine.py` writes it; the unit tests compare."""

from pathlib import Path

from app.workflow import attempt, experiment, job, process, task

INTRO = """# State machines

Drawn from the tables in `app/workflow` by `docs/draw_state_machine.py`; a test compares the two. Do not edit.

Every state has a row, also the last ones. For tasks every (state, message) pair is a move, *late* (kept in history, moves nothing) or an error (set aside).
An older attempt or epoch is always late, whatever the table says. Moves are guarded by row lock and version, value sets by CHECKs in the database.
"""


def edges(table: dict) -> str:
    lines = ["```mermaid", "stateDiagram-v2"]
    for state in type(next(iter(table))):
        following = table[state]
        lines += [f"  {state} --> {each}" for each in sorted(following)] or [f"  {state} --> [*]"]
    return "\n".join([*lines, "```"])


def rows(table: dict) -> str:
    lines = ["| state | next |", "|---|---|"]
    for state in type(next(iter(table))):
        following = table[state]
        lines.append(f"| {state} | {', '.join(sorted(following)) or 'none'} |")
    return "\n".join(lines)


def pairs() -> str:
    kinds = sorted({kind for moves in task.MOVES.values() for kind in moves}, key=lambda each: each.__name__)
    lines = ["| message | " + " | ".join(task.State) + " |", "|---|" + "---|" * len(task.State)]
    for kind in kinds:
        cells = []
        for state in task.State:
            moves = task.MOVES[state].get(kind)
            cells.append("error" if moves is None else "late" if not moves else " / ".join(sorted(moves)))
        lines.append(f"| {kind.__name__} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw() -> str:
    parts = [INTRO]
    for name, table in (("Experiment", experiment.NEXT), ("Process", process.NEXT), ("Task", task.NEXT), ("Attempt", attempt.NEXT), ("Job", job.NEXT)):
        parts.append(f"## {name}\n\n{rows(table)}\n" + (f"\n{edges(table)}\n" if name != "Job" else ""))
        if name == "Task":
            parts.append(f"### Task: every message in every state\n\n{pairs()}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("state_machine.md").write_text(draw())
