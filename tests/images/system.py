"""The whole system as compose.yaml brings it up, profiles core and cluster, on a network of its own; a gateway's administrator at the port that is published, and evidence as of any system.

Nothing of the file is replaced but: an image that cannot be pulled by its stand-in; Kafka's advertised name by an address, which this machine understands as well; the compute host's
home by directories that we see, too.
"""

import ipaddress
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.dev.process import wait_until
from app.dev.servers import free_port
from tests.deployment import compose, server_images
from tests.deployment.engine import RUN, Engine, this_run
from tests.deployment.table import DEPLOYMENTS, PORTS
from tests.support.gateway import Gateway
from tests.support.system import System

SERVERS = ("mysql", "kafka")
ONCE = ("secrets", "migrate", "service-token", "topics")
PROFILES = ("core", "cluster")
START_SECONDS, KILLED = 240.0, 137
RESOLVER = "0B00007F"  # 127.0.0.11


class Composed(System):
    """`directory` is shared with the compute host, which knows it by the same path."""

    def __init__(self, docker: Engine, directory: Path) -> None:
        super().__init__(None, directory, database_url="", kafka="", topic_prefix="", partitions=100, counts={})
        self.docker, self.project = docker, f"airavata-test-{this_run()}"
        self.images = {each: server_images.image(docker, each) for each in (*SERVERS, server_images.COMPUTE_HOST)}
        self.api, self.words = free_port(), (*compose.program(), "--project-name", self.project, *(word for each in PROFILES for word in ("--profile", each)))

    # ---- life -------------------------------------------------------------------------------------------------------------------------------------
    def __enter__(self) -> "Composed":
        for name, mode in {".": 0o755, "ssh": 0o755, "scratch": 0o777, "effect": 0o777}.items():  # For a user who is not this one.
            (self.directory / name).mkdir(parents=True, exist_ok=True)
            (self.directory / name).chmod(mode)
        (self.directory / "ssh" / "authorized_keys").touch(mode=0o644)
        addresses = self._addresses()
        (self.directory / "override.yaml").write_text(json.dumps(self._override(addresses)))
        try:
            self.compose("up", "--detach", "--no-build", "--pull", "never")
            password = self.compose("exec", "-T", "mysql", "cat", "/run/secrets/airavata/mysql-password")
            self.database_url, self.kafka = f"mysql+pymysql://airavata:{password}@{addresses['mysql']}:3306/airavata", f"{addresses['kafka']}:9092"
            for each in DEPLOYMENTS:
                self.await_ready(each)
            given = ["--no-deps", "--entrypoint", "airavata", "--env", "AIRAVATA_TOKEN_KEY_FILE=/run/secrets/airavata/token-key"]
            self.tokens = json.loads(self.compose("run", "--rm", "-T", *given, "migrate", "admin", "bootstrap", "--gateway", "laptop", "--output", "json"))
            self.gateway = Gateway([f"http://127.0.0.1:{self.api}"], self.tokens["gateway_token"])
        except BaseException:
            with suppress(subprocess.CalledProcessError):
                print(self.compose("logs", "--no-color", "--tail", "30"))
            self.end()
            raise
        return self

    def _addresses(self) -> dict[str, str]:
        """On a network that nobody has: the engine chooses it."""
        name = f"{self.project}-chosen"
        self.docker.run("network", "create", "--label", f"{RUN}={this_run()}", name)
        subnet = self.docker.run("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", name)
        self.docker.run("network", "rm", name)
        last = int(ipaddress.ip_network(subnet).broadcast_address)  # Others are given from the other end.
        return {"subnet": subnet, **{each: str(ipaddress.ip_address(last - number)) for number, each in enumerate(SERVERS, 10)}}

    def _override(self, addresses: Mapping[str, str]) -> dict[str, Any]:
        described, labels = compose.file(), {"labels": {RUN: this_run()}}
        services: dict[str, Any] = {name: dict(labels) for name, each in described["services"].items() if each["profiles"][0] in PROFILES}
        for name in SERVERS:
            services[name] |= {"image": self.images[name], "networks": {"default": {"ipv4_address": addresses[name]}}}
        services["kafka"]["environment"] = {"KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{addresses['kafka']}:9092"}
        shared = [f"{self.directory}/ssh:/home/science/.ssh:ro", f"{self.directory}:{self.directory}"]
        services[server_images.COMPUTE_HOST]["volumes"] = shared
        networks = {"default": {**labels, "ipam": {"config": [{"subnet": addresses["subnet"]}]}}}
        return {"services": services, "networks": networks, "volumes": dict.fromkeys(described["volumes"], labels)}

    def compose(self, *words: str, stdin: bytes = b"") -> str:
        """What it printed. Raises subprocess.CalledProcessError, with what it said on the terminal."""
        files = ["-f", str(compose.ROOT / "compose.yaml"), "-f", str(self.directory / "override.yaml")]
        environment = {**self.docker.environment, "AIRAVATA_PORT": str(self.api)}
        done = subprocess.run([*self.words, *files, *words], check=False, capture_output=True, input=stdin, env=environment, timeout=START_SECONDS * 2)
        if done.returncode:
            print(done.stdout.decode()[-4000:], done.stderr.decode()[-4000:], sep="\n")
            done.check_returncode()
        return done.stdout.decode().strip()

    def end(self) -> None:
        if self.gateway is not None:
            self.gateway.close()
        self.docker.end(this_run())

    # ---- its containers -----------------------------------------------------------------------------------------------------------------------------
    def container(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def inspect(self, service: str, what: str) -> str:
        return self.docker.run("inspect", "--format", f"{{{{{what}}}}}", self.container(service))

    def admin_address(self, name: str) -> str:
        return f"{self.inspect(name, 'range .NetworkSettings.Networks}}{{.IPAddress}}{{end')}:{PORTS['admin']}"

    def await_ready(self, name: str, seconds: float = START_SECONDS) -> None:
        if not wait_until(lambda: self.ready(name) is None, seconds, 0.2):
            raise AssertionError(f"{name} is not ready within {seconds:.0f} s: {self.ready(name)}\n{self.docker.both('logs', '--tail', '30', self.container(name))}")

    def listening(self, name: str) -> set[int]:
        """Every port on which a container accepts anything of others, TCP or UDP: so without the engine's own resolver."""
        return set(_bound(Path("/proc") / self.inspect(name, ".State.Pid") / "net"))

    # ---- harm ---------------------------------------------------------------------------------------------------------------------------------------
    def kill(self, component: str, copy: int = 0) -> None:
        """By the engine, which does not restart what it was told to kill."""
        self.rescued += self.rescues_of(component)
        self.docker.run("kill", "--signal", "KILL", self.container(component))
        assert wait_until(lambda: self.inspect(component, ".State.Running") == "false", 30.0, 0.1)
        assert self.inspect(component, ".State.ExitCode") == str(KILLED)

    def revive(self, component: str, copy: int = 0, **_: Any) -> None:
        """Without waiting."""
        self.docker.run("start", self.container(component))

    def rescues(self) -> float:
        return self.rescued + self.rescues_of("scheduler")


def _bound(tables: Path) -> Iterator[int]:
    """Of sockets that wait for anybody: TCP in state LISTEN; UDP connected to nobody, at a port that was chosen (the nudge is sent from one that was not)."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for kind, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for words in (line.split() for line in (tables / kind).read_text().splitlines()[1:]):
            address, _, port = words[1].rpartition(":")
            if words[3] == state and address != RESOLVER and (kind.startswith("tcp") or not low <= int(port, 16) <= high):
                yield int(port, 16)
