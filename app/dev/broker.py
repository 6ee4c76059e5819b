"""A private Apache Kafka (KRaft, broker and controller in one process): one broker, or a cluster, each under a directory of its own."""

import base64
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.dev.process import Daemon, NotStarted

JVM = ["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-Xshare:auto", "-Djava.awt.headless=true"]
FIRST_COMPILER_ONLY = ("-XX:TieredStopAtLevel=1",)  # The second takes a sixth of the CPU of a test, for a broker that lives for minutes.
ARCHIVE = "classes.jsa"  # Beside the jars, from `make bootstrap`: what a broker loads, as it lies in memory. A start takes two to three seconds of CPU with it, five without.
LOGGING = """rootLogger.level=WARN
rootLogger.appenderRef.f.ref=F
appender.f.type=Console
appender.f.name=F
appender.f.layout.type=PatternLayout
appender.f.layout.pattern=[%d] %p %m (%c)%n
"""


def cluster(bases: Mapping[str, Path], jars: Path, ports: Sequence[tuple[int, int]], *, jvm: Sequence[str] = FIRST_COMPILER_ONLY) -> tuple[list[Daemon], str]:
    """Brokers by name, each also a controller, with one (client, controller) pair of ports each; three of them replicate everything three times and write with two alive.

    The daemons and the address to begin with. Formats a base at its first start.
    """
    voters = ",".join(f"{number}@127.0.0.1:{controller}" for number, (_, controller) in enumerate(ports, 1))
    replicas = 3 if len(ports) >= 3 else 1
    identity = "A" + base64.urlsafe_b64encode(os.urandom(16)).decode()[1:22]  # A leading "-" would be taken for an option.
    daemons = []
    for number, ((name, base), (port, controller)) in enumerate(zip(bases.items(), ports, strict=True), 1):
        base.mkdir(parents=True, exist_ok=True)
        properties = base / "server.properties"
        properties.write_text(
            f"process.roles=broker,controller\nnode.id={number}\n"
            f"controller.quorum.voters={voters}\n"
            f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n"
            "controller.listener.names=CONTROLLER\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
            f"log.dirs={base}/data\nnum.partitions=1\nauto.create.topics.enable=false\nunclean.leader.election.enable=false\n"
            f"default.replication.factor={replicas}\nmin.insync.replicas={(replicas + 1) // 2}\noffsets.topic.replication.factor={replicas}\noffsets.topic.num.partitions=8\n"
            f"transaction.state.log.replication.factor={replicas}\ntransaction.state.log.min.isr={(replicas + 1) // 2}\ntransaction.state.log.num.partitions=8\ntransaction.max.timeout.ms=60000\n"
            "metadata.max.idle.interval.ms=10000\ngroup.min.session.timeout.ms=500\ngroup.initial.rebalance.delay.ms=0\nlog.segment.bytes=16777216\nlog.index.size.max.bytes=1048576\n"
            "num.network.threads=2\nnum.io.threads=4\nnum.replica.fetchers=1\nlog.cleaner.dedupe.buffer.size=20971520\nlog.cleaner.threads=1\nbackground.threads=2\n"
        )
        (base / "log4j2.properties").write_text(LOGGING)
        java = ["java", *JVM, *(f"-XX:SharedArchiveFile={each}" for each in jars.glob(ARCHIVE)), *jvm, f"-Dlog4j2.configurationFile={base}/log4j2.properties", "-cp", f"{jars}/*"]
        if not (base / "data" / "meta.properties").exists():
            done = subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", identity, "-c", str(properties)], check=False, capture_output=True, timeout=120)
            if done.returncode:
                raise NotStarted(f"Kafka could not format {base}: {done.stderr.decode()[-500:]}")
        daemons.append(Daemon(name, base, [*java, "kafka.Kafka", str(properties)], answers=lambda own=f"127.0.0.1:{port}": answers(own), start_seconds=120.0))  # type: ignore[misc]
    return daemons, ",".join(f"127.0.0.1:{port}" for port, _ in ports)


def answers(bootstrap: str) -> bool:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        return bool(AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.connection.setup.timeout.ms": 2000}).list_topics(timeout=2).brokers)
    except KafkaException:
        return False
