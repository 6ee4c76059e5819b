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
COMMANDS = [line.split(" #")[0].strip() for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines() if line.strip()]


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
    lines = [each for each in COMMANDS if re.search(r"> [\w-]+$", each)]
    assert [each.rpartition(" ")[2] for each in lines] == ["master-key", "token-key", "internal-token"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for line in lines:
        subprocess.run(
            ["bash", "-c", f"umask 077; {line}"], cwd=tmp_path, check=True, env={"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}, timeout=120
        )
    told = {f"AIRAVATA_{each.upper().replace('-', '_')}_FILE": str(tmp_path / each) for each in ("master-key", "token-key", "internal-token")}
    settings = read(told, database=False)
    assert len(secrets.master_key(settings.master_key)) == 32
    assert len(settings.token_key) >= admin.TOKEN_KEY_CHARACTERS_MIN
    assert secrets.lookup_of(settings.internal_token)


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
