"""What is drawn from the code stands as the code says, and what the pages name is there."""

import ast
import importlib
import re
import runpy
from dataclasses import fields
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from app import cli
from app.settings import Settings
from tests.chaos.bounds import POOLS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FLOW = (DOCS / "message_flow.md").read_text()
PRODUCT = [path for folder in ("app", "outbox_relay", "components", "observability", "migrations") for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".sh"}]


def test_state_machine_md_is_drawn_from_the_tables():
    drawn = runpy.run_path(str(DOCS / "draw_state_machine.py"))["draw"]()
    assert (DOCS / "state_machine.md").read_text() == drawn, "run: python docs/draw_state_machine.py"


@pytest.mark.parametrize("page", sorted({found for path in [*PRODUCT, *ROOT.glob("*.md")] for found in re.findall(r"\bdocs/[\w./-]+\.(?:md|json)", path.read_text())}))
def test_a_page_that_is_referred_to_is_there(page: str) -> None:
    assert (ROOT / page).is_file()


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda each: each.name)
def test_a_link_leads_somewhere(page: Path) -> None:
    links = [each for each in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()) if "://" not in each]
    assert [each for each in links if not (page.parent / each).exists()] == []


def named(text: str) -> list[tuple[str, list[str]]]:
    """`a/{b,c}.py, d.py: one, two` → each file with the functions and classes that some of them must have."""
    files, _, names = text.partition(": ")
    parts = [[files]] if "{" not in files else [[head] if n % 2 == 0 else head.split(",") for n, head in enumerate(re.split(r"[{}]", files))]
    return [(each.strip(), [name.strip() for name in names.split(",") if name]) for spelt in product(*parts) for each in "".join(spelt).split(", ")]


def defined(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize("text", re.findall(r"`([\w/{},. ]+(?:\.py|\.sh|/)(?:: [\w., ]+)?)`", FLOW))
def test_the_message_flow_names_files_and_functions_that_are_there(text: str) -> None:
    files = {name: [path for path in PRODUCT if f"/{path.relative_to(ROOT)}".endswith(f"/{name}")] or [each for each in [ROOT / name] if name.endswith("/") and each.is_dir()] for name, _ in named(text)}
    assert all(files.values()), files
    have = {name for paths in files.values() for path in paths if path.suffix == ".py" for name in defined(path)}
    assert set(named(text)[0][1]) <= have


@pytest.mark.parametrize(
    ("pod", "copy", "component"),
    [
        ("API pod", "api", "app.api"), ("relay", "relay", "outbox_relay"), ("scheduler", "scheduler", "components.task_scheduler"),
        ("executor", "executor-job", "components.task_executors"), ("generator", "generator", "components.workflow_generator"),
    ],
)  # fmt: skip
def test_a_pod_is_said_to_want_the_connections_that_its_pools_have(pod: str, copy: str, component: str) -> None:
    module = importlib.import_module(f"{component}.__main__")
    calls = [node for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())) if isinstance(node, ast.Call) and ast.unparse(node.func) == "engine.connect"]
    sizes = [ast.unparse(word.value) for each in calls for word in each.keywords if word.arg == "size"]
    defaults = SimpleNamespace(**{each.name: each.default for each in fields(Settings)})
    have = sum(eval(each, {**vars(module), "settings": defaults}) for each in sizes)
    assert sizes
    assert re.search(rf"\b{have} per {pod}\b", (DOCS / "deploying.md").read_text()), f"{have} per {pod}"
    assert POOLS[copy] == have, "tests/chaos/bounds.py"


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`(?:\$ )?airavata ([a-z][\w -]*)", (DOCS / "operating.md").read_text()) + re.findall(r"^\$ airavata ([\w -]+)$", (DOCS / "operating.md").read_text(), re.MULTILINE))))
def test_a_command_of_the_tour_exists(line: str) -> None:
    found: Any = typer.main.get_command(cli.root)
    words = line.split()
    while words and hasattr(found, "commands") and words[0] in found.commands:
        found = found.commands[words.pop(0)]
    assert not hasattr(found, "commands"), f"airavata {line}: no such command"
