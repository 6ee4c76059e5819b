"""A certificate authority of a test, and servers that speak TLS alone: a MySQL or MariaDB that refuses whoever comes in the clear, and a Kafka with accounts and access rules.

They are the private servers of app/dev, told more before they start: in my.cnf and server.properties a later line wins.
"""

import ipaddress
import stat
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, AdminClient, ResourcePatternType, ResourceType  # type: ignore[attr-defined]
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app import clock
from app.dev import broker, databases
from app.dev.databases import DatabaseAddress
from app.dev.process import Daemon
from app.dev.servers import ROOT, free_port

PASSWORD = "pw-of-{}"
OPERATIONS = {"Read": AclOperation.READ, "Write": AclOperation.WRITE, "Describe": AclOperation.DESCRIBE, "Create": AclOperation.CREATE, "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS, "AlterConfigs": AclOperation.ALTER_CONFIGS}
RESOURCES = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactional id": ResourceType.TRANSACTIONAL_ID}


class Authority:
    """`certificate`: its own, a file in PEM."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.certificate = directory, directory / "ca.pem"
        self.key, self.name = ec.generate_private_key(ec.SECP256R1()), _name("authority of a test")
        self.certificate.write_bytes(_pem(self._signed(self.name, self.key, x509.BasicConstraints(ca=True, path_length=None))))

    def server(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a server on loopback: files in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, private = self.directory / f"{name}.pem", self.directory / f"{name}-key.pem"
        own = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate.write_bytes(_pem(self._signed(_name(name), key, own)))
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return certificate, private

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> x509.Certificate:
        now = clock.utc_now()
        made = x509.CertificateBuilder(subject_name=subject, issuer_name=self.name, public_key=key.public_key(), serial_number=x509.random_serial_number())
        made = (
            made.not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        )
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        return made.sign(self.key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def database(kind: str, base: Path, authority: Authority) -> tuple[Daemon, DatabaseAddress]:
    """Not started."""
    port = free_port()
    daemon, address = databases.mysql(base, ROOT / ".dev" / "lib" / "mysql", port) if kind == "mysql" else databases.mariadb(base, port)
    certificate, key = authority.server(kind)
    with (base / "my.cnf").open("a") as file:
        file.write(f"ssl_ca={authority.certificate}\nssl_cert={certificate}\nssl_key={key}\nrequire_secure_transport=ON\n")
    address = replace(address, tls=True)
    daemon.answers = lambda: databases.answers(address)
    return daemon, address


class Kafka:
    """Its secured listener; the one in the clear is for the test alone, whoever comes there may do anything. `accounts`: who may log in."""

    def __init__(self, base: Path, authority: Authority, accounts: Iterable[str]) -> None:
        port, plain = free_port(), free_port()
        (self.daemon,), self.plain = broker.cluster({"kafka": base}, ROOT / ".dev" / "lib" / "kafka", [(plain, free_port())])
        self.bootstrap, self.authority, self.base = f"127.0.0.1:{port}", authority, base
        certificate, key = authority.server("kafka")
        (base / "kafka.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
        told = (base / "server.properties").read_text()
        listeners = next(line for line in told.splitlines() if line.startswith("listeners=")).removeprefix("listeners=")
        users = " ".join(f'user_{each}="{PASSWORD.format(each)}"' for each in accounts)
        (base / "server.properties").write_text(
            f"{told}listeners={listeners},SECURED://127.0.0.1:{port}\nadvertised.listeners=PLAINTEXT://{self.plain},SECURED://{self.bootstrap}\n"
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL\ninter.broker.listener.name=PLAINTEXT\n"
            f"listener.name.secured.ssl.keystore.type=PEM\nlistener.name.secured.ssl.keystore.location={base}/kafka.pem\n"
            "listener.name.secured.sasl.enabled.mechanisms=PLAIN\n"
            f"listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};\n"
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\nsuper.users=User:ANONYMOUS\n"
        )

    def client(self, account: str, *, password: str = "", authority: Authority | None = None) -> Path:
        """The account's file for AIRAVATA_KAFKA_CLIENT_FILE."""
        path = self.base / f"client-{account}-{len(list(self.base.glob('client-*')))}"
        path.write_text(
            f"security.protocol=SASL_SSL\nssl.ca.location={(authority or self.authority).certificate}\n"
            f"sasl.mechanism=PLAIN\nsasl.username={account}\nsasl.password={password or PASSWORD.format(account)}\n"
        )
        path.chmod(stat.S_IRUSR)
        return path

    def allow(self, account: str, resource: str, name: str, operations: Iterable[str]) -> None:
        """`name`: ending in `*` it is a prefix."""
        pattern = ResourcePatternType.PREFIXED if name.endswith("*") else ResourcePatternType.LITERAL
        rules = [
            AclBinding(RESOURCES[resource], name.rstrip("*"), pattern, f"User:{account}", "*", OPERATIONS[each], AclPermissionType.ALLOW) for each in operations
        ]
        client = AdminClient({"bootstrap.servers": self.plain})
        for future in client.create_acls(rules).values():
            future.result(30)
