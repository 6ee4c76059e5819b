"""Each image, started as a cluster would: confined, user 10001. It answers its probes, waits for what is away, refuses what is wrong, and goes when asked."""

import hashlib
import json
import stat
import time
from pathlib import Path

import pytest

from app import VERSION, secrets
from app.dev.servers import free_port
from app.settings import read
from tests.deployment import images, release
from tests.deployment.compose import file
from tests.deployment.engine import Engine
from tests.deployment.table import DEPLOYMENTS, EVERYBODY
from tests.images.conftest import running

KEYS = {"TOKEN_KEY": "k" * 40, "MASTER_KEY": "0" * 64, "INTERNAL_TOKEN": "airv_token"}


def settings() -> dict[str, str]:
    """Of a component whose MySQL and Kafka are both away."""
    return {**KEYS, "MYSQL_URL": f"mysql://a:b@127.0.0.1:{free_port()}/airavata", "KAFKA": f"127.0.0.1:{free_port()}"}


def test_all_images_share_every_layer(docker: Engine) -> None:
    layers = {docker.run("image", "inspect", "--format", "{{json .RootFS.Layers}}", f"{images.NAMES}/{each}:{VERSION}") for each in EVERYBODY}
    assert len(layers) == 1


def test_the_wheel_inside_is_the_released_one(docker: Engine, tmp_path: Path) -> None:
    """Where the work tree is what is committed."""
    wheel = release.build("HEAD", tmp_path)[0]
    inside = images.REPORTS / wheel.name
    assert hashlib.sha256(inside.read_bytes()).hexdigest() == hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_the_build_lists_what_is_inside_and_under_which_licence(docker: Engine) -> None:
    told = {each["name"] for each in json.loads((images.REPORTS / "sbom.cdx.json").read_text())["components"]}
    licences = (images.REPORTS / "licences.md").read_text()
    assert {"confluent-kafka", "SQLAlchemy", "paramiko"} <= told
    assert {"pytest", "mypy"}.isdisjoint(told)
    assert all(f"| {each} " in licences for each in ("confluent-kafka", "SQLAlchemy", "paramiko"))


@pytest.mark.parametrize("component", EVERYBODY)
def test_an_image_has_no_compiler_and_no_installer(docker: Engine, component: str) -> None:
    look = "import shutil, importlib.util as u; print([x for x in ('gcc', 'pip', 'pip3', 'uv', 'curl') if shutil.which(x)] + [x for x in ('pip',) if u.find_spec(x)])"
    assert docker.run("run", "--rm", "--entrypoint", "python", f"{images.NAMES}/{component}:local", "-c", look) == "[]"


@pytest.mark.parametrize("component", DEPLOYMENTS)
def test_a_component_without_its_stores_lives_waits_and_goes_when_asked(docker: Engine, component: str) -> None:
    with running(docker, component, settings=settings()) as container:
        container.until("/startupz", 200)
        assert container.probe("/livez") == (200, "alive")
        code, text = container.probe("/readyz")
        assert code == 503
        assert text
        assert container.probe("/metrics")[0] == 200
        began = time.monotonic()
        docker.run("stop", "--time", str(DEPLOYMENTS[component].grace_seconds), container.name)
        assert container.inspect(".State.ExitCode") == "0", container.logs()
        assert time.monotonic() - began < DEPLOYMENTS[component].grace_seconds


@pytest.mark.parametrize("component", DEPLOYMENTS)
def test_a_component_without_configuration_says_what_it_lacks_and_ends_with_78(docker: Engine, component: str) -> None:
    with running(docker, component, settings={"COLOUR": "blue"}) as container:
        assert docker.run("wait", container.name, seconds=120) == "78"
        lines = container.logs().splitlines()
        assert lines[0] == f"{component}: AIRAVATA_COLOUR: unknown setting"
        assert component == "event-sink" or lines[1].startswith("AIRAVATA_MYSQL_URL: required")


def test_a_secret_that_others_may_read_is_refused(docker: Engine, tmp_path: Path) -> None:
    secret = tmp_path / "mysql-url"
    secret.write_text("mysql://a:b@127.0.0.1:1/airavata")
    secret.chmod(0o644)
    with running(docker, "relay", settings={"MYSQL_URL_FILE": "/run/secrets/mysql-url"}, mounts={secret: "/run/secrets/mysql-url"}) as container:
        assert docker.run("wait", container.name, seconds=120) == "78"
        assert "mode 0644 is too wide for a secret" in container.logs()


def test_migrations_end_with_a_word_where_there_is_no_database(docker: Engine) -> None:
    with running(docker, "migrations", settings=settings()) as container:
        assert docker.run("wait", container.name, seconds=120) == "6"
        assert "Connection refused" in container.logs() or "Can't connect" in container.logs()


def test_compose_makes_its_secrets_once_for_the_user_who_runs_alone(docker: Engine, tmp_path: Path) -> None:
    """The service `secrets` of compose.yaml, run twice as it stands there."""
    service = file()["services"]["secrets"]
    script = service["command"][0].replace("$$", "$")

    made, data = tmp_path / "made", tmp_path / "data"
    made.mkdir()
    data.mkdir()

    def run(address: str) -> dict[str, str]:
        words = [
            *["--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp", "--user"],
            service["user"],
            *(word for each in service["cap_add"] for word in ("--cap-add", each)),
            *f"--volume {made}:/made --volume {data}:/data --env MYSQL={address}".split(),
        ]
        docker.run("run", "--rm", *words, "--entrypoint", service["entrypoint"][0], service["image"], *service["entrypoint"][1:], script)
        assert {(each.stat().st_uid, stat.S_IMODE(each.stat().st_mode)) for each in made.iterdir()} == {(10001, 0o400)}
        return {each.name: each.read_text() for each in made.iterdir()}

    first, second = run("mysql:3306"), run("proxy:13306")
    assert set(first) == {"mysql-password", "mysql-url", "token-key", "master-key", "internal-token"}
    assert {name for name in first if first[name] != second[name]} == {"mysql-url"}
    told = read({f"AIRAVATA_{name.upper().replace('-', '_')}_FILE": str(made / name) for name in ("mysql-url", "token-key", "master-key", "internal-token")})
    assert told.mysql_url == f"mysql://airavata:{first['mysql-password']}@proxy:13306/airavata"
    assert len(secrets.master_key(told.master_key)) == 32
    assert secrets.lookup_of(told.internal_token)
    assert data.stat().st_uid == 10001
