"""The Dockerfile, read: what every image of ours is. Building and starting them needs an engine: `make images`, tests/images."""

import re

import pytest

from app.dev.system import COMPONENTS
from tests.deployment.engine import targets
from tests.deployment.images import python_image
from tests.deployment.locked import ROOT
from tests.deployment.table import DEPLOYMENTS, EVERYBODY, PORTS

TEXT = (ROOT / "Dockerfile").read_text()
STAGES = {each.split(maxsplit=3)[2]: each for each in re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]}


def instructions(stage: str, word: str) -> list[str]:
    return re.findall(rf"^{word} (.*(?:\\\n.*)*)", STAGES[stage], flags=re.MULTILINE)


def test_there_is_one_target_per_microservice() -> None:
    assert set(targets(TEXT)) == set(EVERYBODY)


@pytest.mark.parametrize("component", DEPLOYMENTS)
def test_an_image_starts_what_a_private_system_starts(component: str) -> None:
    """In exec form: the Python process is number 1 and gets the signals."""
    words = ", ".join(f'"{each}"' for each in ("python", "-m", *COMPONENTS[component]))
    assert instructions(component, "ENTRYPOINT") == [f"[{words}]"]


def test_the_migrations_image_is_the_command_line() -> None:
    assert instructions("migrations", "ENTRYPOINT") == ['["airavata", "admin"]']
    assert instructions("migrations", "HEALTHCHECK") == ["NONE"]


def test_targets_differ_in_metadata_alone_so_that_they_share_every_layer() -> None:
    for each in EVERYBODY:
        words = {line.split()[0] for line in STAGES[each].splitlines()[1:] if line and not line.startswith("#")}
        assert words <= {"LABEL", "EXPOSE", "ENTRYPOINT", "CMD", "HEALTHCHECK"}, each


def test_the_base_image_is_named_by_digest() -> None:
    assert re.fullmatch(r"python:3\.1[1-4]-slim@sha256:[0-9a-f]{64}", python_image(TEXT))
    assert len(re.findall(r"^FROM \$\{PYTHON_IMAGE\} AS", TEXT, flags=re.MULTILINE)) == 2
    assert not re.search(r"^FROM (?!\$\{PYTHON_IMAGE\}|base |scratch )", TEXT, flags=re.MULTILINE)


def test_what_runs_has_no_root_no_shell_form_and_says_how_it_is() -> None:
    assert instructions("base", "USER") == ["10001:10001"]
    assert instructions("base", "STOPSIGNAL") == ["SIGTERM"]
    assert "127.0.0.1:9464/livez" in instructions("base", "HEALTHCHECK")[0]
    assert not re.search(r"^(ENTRYPOINT|CMD) [^\[]", TEXT, flags=re.MULTILINE)


def test_only_what_was_built_is_copied_into_what_runs() -> None:
    assert instructions("base", "COPY") == ["--from=build /opt/airavata /opt/airavata"]


def test_everything_installed_is_locked_with_hashes() -> None:
    installs = [line for line in TEXT.splitlines() if " install " in line]
    assert len(installs) == 3
    assert ["--require-hashes" in line for line in installs] == [True, True, False]
    assert "--no-deps" in installs[2], "our own wheel, just built"


def test_a_component_listens_where_the_table_says() -> None:
    listens = dict(re.findall(r"AIRAVATA_(\w+)_LISTEN=0\.0\.0\.0:(\d+)", TEXT))
    assert {name.lower(): int(port) for name, port in listens.items()} == PORTS


def test_nothing_gets_into_a_build_but_what_is_named() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    named = {line[1:] for line in lines if line.startswith("!")}
    copied = {word for each in instructions("build", "COPY") for word in each.split()[:-1]}
    assert named == copied


def test_each_image_says_what_it_is() -> None:
    assert {"vendor", "licenses", "version", "revision"} == set(re.findall(r"org\.opencontainers\.image\.(\w+)=", STAGES["base"]))
    assert all(instructions(each, "LABEL") == [f'org.opencontainers.image.title="airavata-workflow {each}"'] for each in EVERYBODY)
