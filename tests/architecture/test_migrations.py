"""What a revision may do to a schema that two releases run on: expand it, by one statement that may be repeated. Judged from the text, without a database.

A new table, a column that the release before need not fill, an index that refuses nothing. A *contract* step takes away what an earlier release used, says so by the lowest release
in its id, and comes a release later: whoever ships it still runs beside the release before (that it waits for those shut out: tests/integration/test_migrations.py).
"""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

import migrations
from app.workflow import attempt, experiment, job, process, task

STATES = {"experiments": experiment, "processes": process, "tasks": task, "attempts": attempt, "jobs": job}
REVISIONS = sorted((Path(__file__).parents[2] / "migrations" / "versions").glob("*.py"))
NEW_TABLE = re.compile(r"CREATE TABLE IF NOT EXISTS \w+ \(.+\) ENGINE=InnoDB .+")
NEW_INDEX = re.compile(r"(?:ALTER TABLE \w+ ADD (?:INDEX|KEY)|CREATE INDEX) \w+ (?:ON \w+ )?\([\w, ()]+\)")
NEW_COLUMN = re.compile(r"ALTER TABLE \w+ ADD COLUMN \w+ (.+)")
REFUSES = frozenset({"UNIQUE", "PRIMARY", "KEY", "CHECK", "REFERENCES"})  # A row of the release before might be.


def faults(source: str, before: str | None = None, release: tuple[int, int] = migrations.RELEASE) -> list[str]:
    """What is wrong with a revision's text; `before`: the text of the one it stands on; `release`: who ships it."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name != "downgrade"]
    spoken = [(node, call) for node in functions for call in ast.walk(node) if isinstance(call, ast.Call) and _changes(call)]
    if [(node.name, ast.unparse(call.func)) for node, call in spoken] != [("upgrade", "op.execute")]:
        return ["upgrade() must be one op.execute, and beside it only SELECT"]
    [(upgrade, call)] = spoken
    if (text := _text(call)) is None:
        return ["op.execute must be given its text: a revision is frozen"]
    statement = " ".join(text.split())
    contract = _lowest(source) > _lowest(before or source)
    found = [] if contract != _expands(statement) else [f"not {'a contract' if contract else 'an expand'} step: {statement[:120]}"]
    if " IF NOT EXISTS " not in statement and " IF EXISTS " not in statement and not any(isinstance(node, ast.If) and call in ast.walk(node) for node in upgrade.body):
        found.append("a run may die between the statement and its note: `if …:` before it")
    if contract and _lowest(source) >= release:
        found.append("shuts out the release before the one that ships it: a contract step comes a release later")
    return found + _id_faults(source, before)


def _changes(call: ast.Call) -> bool:
    """Alembic's operations, and whatever takes SQL that is no question."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr == "get_bind":
        return False
    of_alembic = isinstance(call.func.value, ast.Name) and call.func.value.id == "op"
    return of_alembic or (call.func.attr in {"execute", "exec_driver_sql"} and not (_text(call) or "").startswith("SELECT "))


def _text(call: ast.Call) -> str | None:
    given = call.args[0] if call.args else None
    return given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else None


def _expands(statement: str) -> bool:
    """One statement of one clause, and of a kind that the release before does not notice."""
    bare = re.sub(r"'(?:[^']|'')*'", "''", statement)
    clauses = re.sub(r"\((?:[^()]|\([^()]*\))*\)", "()", bare)
    if ";" in bare:
        return False
    if NEW_TABLE.fullmatch(bare):
        return True
    if column := NEW_COLUMN.fullmatch(bare):
        words = set(re.findall(r"\w+", column[1]))
        return "," not in clauses and not words & REFUSES and ("NOT NULL" not in column[1] or "DEFAULT" in words)
    return bool(NEW_INDEX.fullmatch(bare)) and "," not in clauses


def _id_faults(source: str, before: str | None) -> list[str]:
    (ours, below), (theirs, _) = _ids(source), _ids(before) if before else (None, None)
    found = [] if below == theirs else [f"{ours} stands on {below}, not on {theirs}: revisions are a line"]
    if before and _lowest(source) < _lowest(before):
        found.append(f"{ours} lets in releases that {theirs} shuts out")
    return found


def _lowest(source: str) -> tuple[int, int]:
    """The lowest release that may run on the schema it leaves."""
    return migrations.lowest(_ids(source)[0] or "")


def _ids(source: str) -> tuple[str | None, str | None]:
    assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    told = {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in assigned}
    return told.get("revision"), told.get("down_revision")


@pytest.mark.parametrize(("before", "path"), list(pairwise([None, *REVISIONS])), ids=lambda each: each.stem if each else "")
def test_a_revision_expands_by_one_statement_that_may_be_repeated(before: Path | None, path: Path) -> None:
    assert faults(path.read_text(), before.read_text() if before else None) == []


@pytest.mark.parametrize("table", STATES)
def test_the_database_lets_in_the_states_that_the_code_knows_and_has_the_same_ones_end(table: str) -> None:
    text, known = "".join(path.read_text() for path in REVISIONS), STATES[table]
    states, ends = (", ".join(f"'{each}'" for each in some) for some in (known.State, sorted(known.TERMINAL)))
    assert f"CONSTRAINT {table}_state CHECK (state IN ({states}))" in text
    assert f"CONSTRAINT {table}_finished CHECK ((state IN ({ends})) = (finished_at IS NOT NULL))" in text


def a_revision(statement: str, *, guarded: bool = True, revision: str = "0002_r0_1") -> str:
    run = f"op.execute({statement!r})"
    return f"revision = {revision!r}\ndown_revision = '0001_r0_1'\ndef upgrade():\n    " + (f"if not _there():\n        {run}\n" if guarded else f"{run}\n")


BEFORE = "revision = '0001_r0_1'\ndown_revision = None\n"


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE tasks ADD COLUMN priority INTEGER",
        "ALTER TABLE tasks ADD COLUMN note VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin",
        "ALTER TABLE tasks ADD COLUMN share DECIMAL(4, 2) NOT NULL DEFAULT 0",
        "ALTER TABLE tasks ADD COLUMN note VARCHAR(16) NOT NULL DEFAULT 'a, b'",
        "ALTER TABLE tasks ADD INDEX tasks_state (state, since)",
        "CREATE INDEX tasks_note ON tasks (note(8), id)",
    ],
)
def test_what_the_release_before_does_not_notice_is_an_expand_step(statement: str) -> None:
    assert faults(a_revision(statement), BEFORE) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE tasks",
        "TRUNCATE TABLE tasks",
        "RENAME TABLE tasks TO steps",
        "UPDATE tasks SET note = ''",
        "ALTER TABLE tasks DROP COLUMN note",
        "ALTER TABLE tasks DROP INDEX tasks_state",
        "ALTER TABLE tasks RENAME COLUMN note TO remark",
        "ALTER TABLE tasks CHANGE note note VARCHAR(32)",
        "ALTER TABLE tasks MODIFY COLUMN note VARCHAR(32)",
        "ALTER TABLE tasks ALTER COLUMN note SET DEFAULT ''",
        "ALTER TABLE tasks ADD COLUMN note VARCHAR(16) NOT NULL",
        "ALTER TABLE tasks ADD COLUMN note VARCHAR(16) UNIQUE",
        "ALTER TABLE tasks ADD COLUMN note VARCHAR(16) NOT NULL DEFAULT '' CHECK (note <> 'x')",
        "ALTER TABLE tasks ADD COLUMN note VARCHAR(16), DROP COLUMN state",
        "ALTER TABLE tasks ADD COLUMN a INTEGER, ADD COLUMN b INTEGER",
        "ALTER TABLE tasks ADD COLUMN a INTEGER; DROP TABLE jobs",
        "ALTER TABLE tasks ADD UNIQUE INDEX tasks_note (note)",
        "ALTER TABLE tasks ADD CONSTRAINT tasks_state CHECK (state <> 'NEW')",
        "CREATE UNIQUE INDEX tasks_note ON tasks (note)",
        "CREATE TABLE steps (id INTEGER NOT NULL) ENGINE=InnoDB CHARSET=utf8mb4",
        "CREATE TABLE IF NOT EXISTS steps (id INTEGER NOT NULL) ENGINE=InnoDB CHARSET=utf8mb4; DROP TABLE jobs",
    ],
)
def test_what_the_release_before_would_trip_over_is_refused(statement: str) -> None:
    assert [each for each in faults(a_revision(statement), BEFORE) if each.startswith("not an expand step")]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (a_revision("ALTER TABLE tasks ADD COLUMN a INTEGER", guarded=False), "a run may die"),
        (a_revision("ALTER TABLE tasks ADD COLUMN a INTEGER") + "    op.execute('ALTER TABLE tasks ADD COLUMN b INTEGER')\n", "one op.execute"),
        (a_revision("ALTER TABLE tasks ADD COLUMN a INTEGER").replace("op.execute('", "op.execute(tables.DDL + '"), "given its text"),
        (a_revision("").replace("op.execute('')", "op.drop_column('tasks', 'note')"), "one op.execute"),
        (a_revision("ALTER TABLE tasks ADD COLUMN a INTEGER").replace("op.execute", "op.get_bind().exec_driver_sql"), "one op.execute"),
        (a_revision("ALTER TABLE tasks ADD COLUMN a INTEGER") + "def _there():\n    op.get_bind().exec_driver_sql('DROP TABLE jobs')\n", "one op.execute"),
        (a_revision("ALTER TABLE tasks ADD COLUMN a INTEGER", revision="0002_r0_2"), "not a contract step"),
        (a_revision("ALTER TABLE tasks ADD COLUMN a INTEGER", revision="0002_r0_0"), "lets in"),
        (a_revision("ALTER TABLE tasks DROP COLUMN a"), "not an expand step"),
        (a_revision("ALTER TABLE tasks DROP COLUMN a", revision="0002_r0_2"), "comes a release later"),
        (a_revision("ALTER TABLE tasks DROP COLUMN a", revision="0002_r0_2", guarded=False), "a run may die"),
        (a_revision("ALTER TABLE tasks ADD COLUMN a INTEGER").replace("'0001_r0_1'", "'0000_r0_1'"), "revisions are a line"),
    ],
)
def test_a_revision_that_cannot_be_repeated_or_shuts_a_release_out_is_refused(source: str, told: str) -> None:
    assert [each for each in faults(source, BEFORE, (0, 2)) if told in each]


def test_what_no_release_uses_that_may_still_run_is_taken_away_by_a_step_that_says_so() -> None:
    assert faults(a_revision("ALTER TABLE tasks DROP COLUMN a", revision="0002_r0_2"), BEFORE, (0, 3)) == []
