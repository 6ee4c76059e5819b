"""What an operator does with the settings' own access to MySQL and Kafka: `airavata admin …`, and what a development stack does to become usable.

Each act may be repeated: a second run finds everything made and changes nothing. Tokens are returned once, to be shown once; they are stored as a digest only.
"""

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import migrations
from app import instance, secrets
from app.errors import Illegal, Misconfigured, StoreUnavailable
from app.messages.codec import wire_time
from app.mysql import access, audit, engine, outbox, shards, unit_of_work
from app.mysql.unit_of_work import Transaction, UnitOfWork
from app.settings import Settings

if TYPE_CHECKING:
    from app.kafka.topics import Difference

Say = Callable[[str], None]
CONNECT_SECONDS = 3.0
TOKEN_KEY_CHARACTERS_MIN = 32  # As the API server demands.
TOKEN_LIFE = timedelta(days=90)
NEW_GATEWAY = {"display_name": "", "domain": "", "contact_email": "", "default_storage_id": None, "paused": False, "limits": {"live_experiments": None}}


def migrate(settings: Settings, *, say: Say) -> None:
    """The schema to this release's revision."""
    before = migrations.current(settings.mysql_url)
    migrations.upgrade(settings.mysql_url)
    after = migrations.current(settings.mysql_url)
    say(f"schema at {after}" + ("" if before == after else f", was {before or 'empty'}"))


@contextmanager
def opened(settings: Settings) -> Iterator[UnitOfWork]:
    """Units of work on a connection of this command's own."""
    connected = engine.connect(settings.mysql_url, size=1)
    try:
        yield unit_of_work.unit_of_work(connected)
    finally:
        connected.dispose()


def bootstrap(settings: Settings, *, gateway: str | None = None, another: bool = False) -> dict[str, Any]:
    """The first operator token; and, if a gateway is named, that gateway and a token for its administrator. Raises Illegal when there is an operator already."""
    if len(settings.token_key) < TOKEN_KEY_CHARACTERS_MIN:
        raise Misconfigured(
            f"AIRAVATA_TOKEN_KEY (or …_FILE): the API server's own, at least {TOKEN_KEY_CHARACTERS_MIN} characters; tokens are kept as an HMAC under it"
        )
    with opened(settings) as begin, begin("admin.bootstrap") as tx:
        at = unit_of_work.now(tx)
        tokens = access.tokens_page(tx, None, before=None, limit=1000)
        if not another and any(row.role == "operator" and row.revoked_at is None and row.expires_at > at for row in tokens):
            raise Illegal("there is an operator token already; if it is lost, `airavata admin bootstrap --another` makes one more")
        made: dict[str, Any] = {"operator_token": token(tx, settings, gateway_id=None, role="operator", at=at)}
        if gateway:
            made["gateway_id"] = _gateway(tx, gateway, at=at)
            made["gateway_token"] = token(tx, settings, gateway_id=made["gateway_id"], role="gateway-admin", at=at)
        request_id = instance.fresh_id("req")
        audit.append(tx, gateway_id=None, user="bootstrap", action="admin.bootstrap", subject=gateway or "operator", reason=None, request_id=request_id, at=at)
    return {**made, "expires_at": wire_time(at + TOKEN_LIFE)}


def token(tx: Transaction, settings: Settings, *, gateway_id: str | None, role: str, at: datetime, user: str = "admin") -> str:
    """A bearer token with all scopes of its role."""
    made, lookup = secrets.new_token()
    _keep(tx, gateway_id, lookup, secrets.token_digest(made, settings.token_key.encode()), name="bootstrap", user=user, role=role, at=at)
    return made


def _keep(tx: Transaction, gateway_id: str | None, lookup: str, digest: bytes, *, name: str, user: str, role: str, at: datetime) -> None:
    row = {"id": instance.fresh_id("tok"), "gateway_id": gateway_id, "lookup": lookup, "digest": digest, "key_id": "1", "name": name, "user": user, "role": role}
    access.create_token(tx, {**row, "scopes": access.ROLES[role], "expires_at": at + TOKEN_LIFE, "now": at})


def service_token(settings: Settings, *, say: Say) -> None:
    """The sink's token, taken from its own secret, made known to the API: so the secret can exist before the API does. A repeat prolongs it. Raises Misconfigured, Illegal."""
    lookup = secrets.lookup_of(settings.internal_token)
    if lookup is None or len(settings.token_key) < TOKEN_KEY_CHARACTERS_MIN:
        raise Misconfigured("AIRAVATA_INTERNAL_TOKEN (or …_FILE): what `airavata admin service-token --new` prints; and AIRAVATA_TOKEN_KEY (or …_FILE): the API server's own")
    digest = secrets.token_digest(settings.internal_token, settings.token_key.encode())
    with opened(settings) as begin, begin("admin.service_token") as tx:
        at, found = unit_of_work.now(tx), access.find_token(tx, lookup)
        if found is None:
            _keep(tx, None, lookup, digest, name="event-sink", user="event-sink", role="service", at=at)
        elif found.role != "service" or found.revoked_at is not None or not secrets.same(found.digest, digest):
            raise Illegal("a token of this look-up part is known: of another role, revoked, or made with another key; make a new one")
        else:
            access.prolong_token(tx, found.id, expires_at=at + TOKEN_LIFE)
    say(f"the service token {'is known now' if found is None else 'was known'}, until {wire_time(at + TOKEN_LIFE)}")


def _gateway(tx: Transaction, name: str, *, at: datetime) -> str:
    """The gateway of this name, made with its `default` project if it is new."""
    found = access.gateways_page(tx, name=name, only=None, before=None, limit=1)
    if found:
        return str(found[0]["id"])
    gateway_id = instance.fresh_id("gw")
    access.create_gateway(tx, gateway_id, name, NEW_GATEWAY, project_id=instance.fresh_id("prj"), now=at)
    return gateway_id


def reach_kafka(bootstrap: str) -> None:
    """Ask the first question by hand: the client library would try for 15 s and write a line for each failure. Raises StoreUnavailable."""
    faults = []
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
            return
        except (OSError, ValueError) as fault:
            faults.append(f"{address}: {fault}")
    raise StoreUnavailable(f"no Kafka broker answers: {'; '.join(faults)}")


def topics(settings: Settings, task_types: Iterable[str], *, apply: bool, say: Say) -> "Difference":
    """Where Kafka and the position rows differ from what is declared; with `apply`, what still is wrong after everything missing was made and set."""
    from app.kafka import topics as declared

    wanted = declared.desired(
        settings.topics, environment=settings.environment, partitions=settings.partitions, shards=settings.relay_shards, task_types=task_types
    )
    reach_kafka(settings.kafka)
    client = declared.Admin(settings.brokers)
    with opened(settings) as begin:
        if apply:
            return declared.apply(client, wanted, begin, replication=settings.replication, say=say)
        return declared.difference(client, wanted, begin, replication=settings.replication)


def relay_state(settings: Settings, *, settle: int | None = None) -> list[dict[str, Any]]:
    """Per shard, what MySQL has settled beside what Kafka's state topic remembers.

    `settle`: a shard for which an operator has decided that Kafka's memory counts from here on. Raises Illegal while a relay holds it, or when it needs no verdict.
    """
    from app.kafka import state

    reach_kafka(settings.kafka)
    with opened(settings) as begin:
        with begin("admin.relay_state.read") as tx:
            shards.ensure(tx, settings.relay_shards)
            rows = shards.all_rows(tx)
            waiting = {row[0]: outbox.count(tx, row[0]) for row in rows}
        found = []
        for shard, owner, until, settled, now in map(tuple, rows):
            record = state.last(settings.brokers, settings.topics.relay_state, shard)
            seq, named = (record.seq, len(record.ids)) if record else (0, 0)
            verdict = "KAFKA_LOST_MEMORY" if seq < settled else "UNSETTLED" if seq > settled else "CLEAN"
            held_by = owner if until is not None and until > now else None
            found.append(
                {"shard": shard, "verdict": verdict, "settled": settled, "kafka_seq": seq, "rows_named": named, "waiting": waiting[shard], "owner": held_by}
            )
            if settle == shard:
                _settle(begin, shard, seq, verdict)
    return found


def _settle(begin: UnitOfWork, shard: int, seq: int, verdict: str) -> None:
    if verdict != "KAFKA_LOST_MEMORY":
        raise Illegal(f"shard {shard} needs no verdict: the relay settles it by itself when it starts")
    with begin("admin.settle") as tx:
        if not shards.reset(tx, shard, seq):
            raise Illegal(f"shard {shard} is held by a relay: stop all relays first")
