"""docs/deploying.md says what the manifests are: its table, its commands, its names."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from app import admin, secrets
from app.settings import read
from observability.catalogue import CATALOGUE
from tests.deployment import kustomize
from tests.deployment.locked import ROOT
from tests.deployment.manifests import of, pods, secret_files
from tests.deployment.table import DEPLOYMENTS

PAGE = (ROOT / "docs" / "deploying.md").read_text()


def lines(block: str) -> list[str]:
    return [line.split(" #")[0].strip() for line in block.splitlines() if line.strip()]


COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL) for line in lines(block)]
MADE = [each for each in COMMANDS if re.search(r"> [\w-]+$", each)]  # Secrets.


@pytest.fixture
def production() -> list[kustomize.Object]:
    return kustomize.objects("production")


def test_the_table_is_the_one_the_manifests_are_held_to() -> None:
    rows = [tuple(each.strip() for each in line.strip("|").split("|")) for line in PAGE.splitlines() if line.startswith("| ") and line.count("|") == 6]
    told = {row[0]: (int(row[1]), int(row[2]), set(row[3].split()), set(row[4].split())) for row in rows if row[1].isdigit()}
    assert told == {name: (row.replicas, row.grace_seconds, set(row.to), set(row.mounted)) for name, row in DEPLOYMENTS.items()}


def test_every_key_that_production_mounts_is_made_by_a_command_of_the_page(production: list[kustomize.Object]) -> None:
    made = set()
    for words in (shlex.split(each) for each in COMMANDS if " create secret generic " in each):
        option = words[-1].removeprefix("--from-file=")
        made.add((words[words.index("generic") + 1], option.split("=")[0]))
    assert made == {(secret, key) for pod in pods(production).values() for optional in (False, True) for secret, key, _ in secret_files(pod, optional=optional)}
    assert of(production, "Secret") == {}, "production's never stand in a file"


def test_the_secrets_that_the_page_makes_are_ones_the_product_takes(tmp_path: Path) -> None:
    assert [each.rpartition(" ")[2] for each in MADE] == ["master-key", "token-key", "internal-token"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for line in MADE:
        subprocess.run(
            ["bash", "-c", f"umask 077; {line}"], cwd=tmp_path, check=True, env={"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}, timeout=120
        )
    told = {f"AIRAVATA_{each.upper().replace('-', '_')}_FILE": str(tmp_path / each) for each in ("master-key", "token-key", "internal-token")}
    settings = read(told, database=False)
    assert len(secrets.master_key(settings.master_key)) == 32
    assert len(settings.token_key) >= admin.TOKEN_KEY_CHARACTERS_MIN
    assert secrets.lookup_of(settings.internal_token)


def test_a_command_is_run_by_a_test_or_the_page_says_what_it_needs() -> None:
    """A cluster or servers of one's own: ⎈ in the paragraph above. An engine that has it: `docker compose`. What else stands in a block is here, with the test that runs it."""
    run = {"make images": "tests/images/conftest.py", **dict.fromkeys(MADE, "tests/deployment/test_documents.py")}
    blocks = re.findall(r"((?:[^\n]+\n)+)\n```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    assert sum(len(lines(block)) for _, block in blocks) == len(COMMANDS)
    left = [each for above, block in blocks if "⎈" not in above for each in lines(block) if "docker compose" not in each and each not in run]
    assert left == []
    assert all((ROOT / each).exists() for each in run.values())


def test_the_sizes_are_those_that_were_measured() -> None:
    report = (ROOT / "docs" / "benchmarks.md").read_text().partition("## Third report")[2].partition("\n## ")[0]
    measured = {name.removesuffix("-0").removesuffix("-noop"): float(figure) for name, figure in re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|", report.partition("| process |")[2], flags=re.MULTILINE)}
    told = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, flags=re.MULTILINE)
    assert {name: float(each) for name, each, _ in told} == measured
    assert all(float(cores) == pytest.approx(float(each) / 10, abs=0.001) for _, each, cores in told)
    for figure, row in (("0.35", "commits per task"), ("0.51", "fsyncs of the engine per task"), ("7.6", "outbox rows per task"), ("4.9", "partitions per Kafka transaction")):
        assert re.search(rf"^\| {row} \|[^|]*\| {figure} \|", report, flags=re.MULTILINE)
        assert figure in PAGE


def test_the_connections_are_those_of_the_pools() -> None:
    """Part 2's, times the pods of the table."""
    each = {"api": 19, "relay": 5, "scheduler": 3, "generator": 1}
    told = re.search(r"connections ≥ (\d+) per API pod, (\d+) per relay \(.*?\), (\d+) per scheduler, (\d+) per executor, (\d+) per generator", PAGE)
    assert told is not None
    assert [int(found) for found in told.groups()] == [each["api"], each["relay"], each["scheduler"], 2, each["generator"]]
    held = sum(row.replicas * each.get(name, 2) for name, row in DEPLOYMENTS.items() if "mysql" in row.to)
    assert f"{held} with the manifests' numbers" in PAGE


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("make ")])
def test_a_target_of_the_page_is_there(command: str) -> None:
    assert re.search(rf"^{command.split()[1]}:.* ##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_every_file_and_folder_the_page_names_is_there() -> None:
    named = set(re.findall(r"\b((?:k8s|tests|docs)/[\w./-]*\w)", PAGE))
    assert named
    assert [each for each in named if not (ROOT / each).exists()] == []


def test_every_metric_to_watch_is_one_that_is_exported() -> None:
    names = set(re.findall(r"`(airavata_\w+)[`{]", PAGE))
    assert len(names) >= 5
    assert names - set(CATALOGUE) == set()
