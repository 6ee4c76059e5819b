"""Faults of MySQL: killed, frozen, read-only, contended, and COMMITs whose answer is lost."""

import os
import re
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import httpx2
import pymysql

from app.dev.process import Daemon, wait_until
from tests.chaos.nemeses.nemesis import KEY, POISONED, Nemesis, Proof, Random, Tail, Undecided, patiently, proven
from tests.chaos.proxy import Link
from tests.chaos.rig import Rig
from tests.chaos.wire import LoseCommit
from tests.support.system import state_of

API_SECONDS = 15.0  # Pool wait, connect and read time-outs of one request, together.
LOST_WAIT_SECONDS = 30.0
MYSQL_NUMBER = re.compile(r"MySQL (\d{4})")


def the_daemon(rig: Rig) -> Daemon:
    found = rig.native.daemons.get(rig.kind)
    if found is None:
        raise Undecided("the database is none of our own processes")
    return found


def root(rig: Rig) -> "pymysql.connections.Connection[Any]":
    """Straight to the server, by no link."""
    connection = rig.native.database(rig.kind).connect()
    connection.select_db(rig.schema)
    return connection


def api_answers(rig: Rig, *, write: bool) -> tuple[int, float]:
    """(status, seconds) of one request to the first API server that answers at all; 0: nothing came."""
    began = time.monotonic()
    headers = {"Authorization": f"Bearer {rig.tokens['gateway_token']}", "Idempotency-Key": f"nemesis-{os.urandom(6).hex()}"}
    try:
        with httpx2.Client(timeout=60.0, headers=headers) as http:
            if write:
                answer = http.post(f"{rig.url_of(0)}/v1/projects", json={"name": f"nemesis-{os.urandom(4).hex()}"})
            else:
                answer = http.get(f"{rig.url_of(0)}/v1/experiments")
    except httpx2.TransportError:
        return 0, time.monotonic() - began
    return answer.status_code, time.monotonic() - began


def letters_of(rig: Rig) -> int:
    """Dead letters that are no work of N19."""
    return int(rig.one(f"SELECT COUNT(*) FROM dead_letters WHERE NOT ({POISONED})", KEY.decode()))


class ApiMustRefuse(Nemesis):
    """While the store cannot be written the API says 503 in time, and nothing is set aside because of it."""

    def look(self, rig: Rig) -> None:
        status, seconds = api_answers(rig, write=True)
        self.after |= {"api_status": status, "api_seconds": round(seconds, 2)}
        self.must(status == 503, f"the API answered {status}, not 503", alone=True)
        self.must(seconds <= API_SECONDS, f"the API took {seconds:.1f} s to refuse", alone=True)

    def nothing_set_aside(self, rig: Rig) -> None:
        letters = patiently(lambda: letters_of(rig))
        self.must(letters == self.letters, f"{letters - self.letters} messages were set aside while the store was away")

    def remember(self, rig: Rig) -> None:
        self.letters = letters_of(rig)


class DatabaseKilled(Nemesis):
    """N5. What it had acknowledged must be there again (P16, by the checker)."""

    name, title = "N5", "MySQL killed, slow to return"

    def strike(self, rig: Rig, rng: Random) -> Proof:
        daemon = the_daemon(rig)
        self.log, child = Tail(daemon.log), daemon.child
        struck = time.monotonic()
        daemon.kill()
        if child is None or child.returncode != -signal.SIGKILL:
            raise Undecided(f"MySQL ended with {child.returncode if child else None}, not by our signal")
        return Proof(struck, {"wait_status": signal.SIGKILL.value})

    def heal(self, rig: Rig) -> None:
        daemon, began = the_daemon(rig), time.monotonic()
        daemon.start()
        daemon.wait()
        self.after |= {"serving_again_seconds": round(time.monotonic() - began, 2), "crash_recovery_lines": self.log.count("crash recovery", "Crash recovery")}
        self.must(self.after["crash_recovery_lines"] > 0, "its log tells of no crash recovery")


class DatabaseFrozen(ApiMustRefuse):
    name, title = "N6", "MySQL frozen"

    def strike(self, rig: Rig, rng: Random) -> Proof:
        daemon = the_daemon(rig)
        self.remember(rig)
        struck = time.monotonic()
        daemon.signal(signal.SIGSTOP, group=True)
        pid = daemon.pid or 0
        proven(lambda: state_of(pid) == "T", 5.0, "MySQL is not stopped")
        self.look(rig)
        return Proof(struck, {"state": state_of(pid)})

    def heal(self, rig: Rig) -> None:
        the_daemon(rig).signal(signal.SIGCONT, group=True)
        self.nothing_set_aside(rig)


class ReadOnly(ApiMustRefuse):
    name, title = "N7", "MySQL read-only"

    def strike(self, rig: Rig, rng: Random) -> Proof:
        if rig.kind != "mysql":
            raise Undecided("MariaDB's read_only does not hold for an account with all grants")
        self.remember(rig)
        self.logs = Tail.of(rig)
        struck = time.monotonic()
        self._set(rig, 1)
        found = rig.rows("SELECT @@super_read_only")
        if found != [(1,)]:
            raise Undecided(f"super_read_only reads back as {found}")
        self.look(rig)
        try:
            proven(lambda: self.logs.count("MySQL 1290"), LOST_WAIT_SECONDS, "no process of ours met error 1290")
        except Undecided:
            self._set(rig, 0)
            raise
        return Proof(struck, {"super_read_only": 1, "errors_1290": self.logs.count("MySQL 1290")})

    def _set(self, rig: Rig, value: int) -> None:
        with root(rig) as connection, connection.cursor() as cursor:
            cursor.execute(f"SET GLOBAL super_read_only = {value}")
            if not value:
                cursor.execute("SET GLOBAL read_only = 0")

    def heal(self, rig: Rig) -> None:
        self._set(rig, 0)
        self.after["errors_1290"] = self.logs.count("MySQL 1290")
        self.nothing_set_aside(rig)


class RogueSession(Nemesis):
    """N8. Variants: deadlock (1213), lock (1205), kill at COMMIT (2013), connections (1040). The server's own counters are the proof; what ours met is told beside it."""

    name, title, weight = "N8", "locks, deadlocks, lost sessions", 4
    variants = ("deadlock", "lock", "kill", "connections")

    def strike(self, rig: Rig, rng: Random) -> Proof:
        self.stop, self.seen, self.logs = threading.Event(), Counter[str](), Tail.of(rig)
        self.session = root(rig)  # Kept: once connections are few, nobody gets another.
        self.letters = letters_of(rig)
        self.begins = self._counters()
        struck = time.monotonic()
        if self.variant == "connections":
            self._connections(rig, 10)
        else:
            self.thread = threading.Thread(target=self._rogue, args=(rig,), name=f"rogue-{self.variant}", daemon=True)
            self.thread.start()
        try:
            proven(self._proof, 60.0, f"the rogue's {self.variant} met nobody: {dict(self.seen)}")
        except Undecided:
            self.heal(rig)
            raise
        return Proof(struck, self._proof())

    def heal(self, rig: Rig) -> None:
        self.stop.set()
        if self.variant == "connections":
            self._connections(rig, 400)
        else:
            self.thread.join(60.0)
        numbers = Counter(MYSQL_NUMBER.findall("\n".join(self.logs.lines())))
        self.after |= {**self._proof(), "ours_met": dict(numbers)}
        self.session.close()
        letters = patiently(lambda: letters_of(rig))
        self.must(letters == self.letters, f"{letters - self.letters} messages were set aside for a {self.variant}")

    def _rogue(self, rig: Rig) -> None:
        """Its own session may be lost too, when another fault is on."""
        try:
            getattr(self, f"_{self.variant}")(rig)
        except pymysql.MySQLError as fault:
            self.seen[f"rogue_lost_{fault.args[0]}"] += 1

    def _counters(self) -> Counter[str]:
        with self.session.cursor() as cursor:
            cursor.execute("SELECT name, count FROM information_schema.innodb_metrics WHERE name IN ('lock_deadlocks', 'lock_timeouts')")
            found = Counter({str(name): int(count) for name, count in cursor.fetchall()})
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Connection_errors_max_connections'")
            return found + Counter({"refused": int(cursor.fetchone()[1])})

    def _proof(self) -> dict[str, int]:
        now = self._counters()
        now.subtract(self.begins)
        told = {
            "deadlock": {"errors_1213": now["lock_deadlocks"] - self.seen["rogue_1213"]},
            "lock": {"errors_1205": now["lock_timeouts"] - self.seen["rogue_1205"]},
            "kill": {"sessions_killed_at_commit": self.seen["at_commit"], "sessions_killed": self.seen["killed"]},
            "connections": {"errors_1040": now["refused"]},
        }[self.variant]
        return told if next(iter(told.values())) > 0 else {}

    def _connections(self, rig: Rig, number: int) -> None:
        with self.session.cursor() as cursor:
            cursor.execute(f"SET GLOBAL max_connections = {number}")
            if number < 100:  # Those that are in stay in: what waits for a new one is refused from here on.
                cursor.execute("SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND db = %s AND command = 'Sleep'", (rig.schema,))
                for (each,) in cursor.fetchall():
                    with suppress(pymysql.MySQLError):
                        cursor.execute(f"KILL {each}")

    def _deadlock(self, rig: Rig) -> None:
        """Tasks before their process, against the product's order; heavy with rows of its own, so that InnoDB lets it live. It goes on when somebody waits for it."""
        with root(rig) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS nemesis_rows (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")
            cursor.execute("SET innodb_lock_wait_timeout = 3")
            while not self.stop.wait(0.05):
                try:
                    cursor.execute("SELECT process_id FROM tasks WHERE state IN ('SCHEDULED', 'EXECUTING') ORDER BY RAND() LIMIT 1")
                    found = cursor.fetchone()
                    if found is None:
                        continue
                    cursor.execute("BEGIN")
                    cursor.execute("INSERT INTO nemesis_rows (v) SELECT 1 FROM information_schema.columns LIMIT 500")
                    cursor.execute("SELECT id FROM tasks WHERE process_id = %s FOR UPDATE", found)
                    wait_until(lambda: self.stop.is_set() or self._waited_for(cursor), 1.5, 0.15)
                    cursor.execute("SELECT id FROM processes WHERE id = %s FOR UPDATE", found)
                except pymysql.OperationalError as fault:
                    self.seen[f"rogue_{fault.args[0]}"] += 1
                finally:
                    cursor.execute("ROLLBACK")

    @staticmethod
    def _waited_for(cursor: Any) -> bool:
        cursor.execute("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
        return bool(cursor.fetchone()[0])

    def _lock(self, rig: Rig) -> None:
        """Every position row of the schedulers, for 15 s."""
        with root(rig) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT part FROM positions WHERE consumer_group LIKE '%%task-scheduler' FOR UPDATE")
            self.stop.wait(15.0)
            cursor.execute("ROLLBACK")

    def _kill(self, rig: Rig) -> None:
        """Whoever is in COMMIT now; and now and then whoever has a transaction open."""
        with root(rig) as connection, connection.cursor() as cursor:
            while not self.stop.is_set():
                cursor.execute("SELECT id, info FROM information_schema.processlist WHERE db = %s AND command = 'Query' AND id <> CONNECTION_ID()", (rig.schema,))
                for each, info in cursor.fetchall():
                    if str(info).upper().startswith("COMMIT"):
                        with suppress(pymysql.MySQLError):  # It was quicker.
                            cursor.execute(f"KILL {each}")
                            self.seen["at_commit"] += 1
                            self.seen["killed"] += 1
                if self.seen["at_commit"] >= 20:
                    return


class CommitLost(Nemesis):
    """N9. Three COMMITs of processes that write: forwarded at once, 1 s late, not at all; the answer swallowed, the connection reset."""

    name, title, weight = "N9", "COMMIT's answer lost", 5

    def strike(self, rig: Rig, rng: Random) -> Proof:
        links = [each for each in rig.links.proxy.of(server="mysql") if each.name.split("-")[0] in {"scheduler", "generator", "executor", "relay", "api"}]
        self.journals = Tail(*(rig.run / "journal").glob("*.jsonl"))
        struck = time.monotonic()
        self.orders = [(link, LoseCommit(after_seconds=after)) for after in (0.0, 1.0, None) for link in rng.sample(links, min(3, len(links)))]
        for link, order in self.orders:
            link.order(order)
        try:
            proven(lambda: len({order.after_seconds for _, order in self._struck()}) == 3, LOST_WAIT_SECONDS, "too few COMMITs came by")
        finally:
            self._withdraw()
        evidence = {"commit_answers_lost": len(self._struck()), "forwarded": [order.seen["forwarded"] for _, order in self._struck()], "of": sorted({link.name for link, _ in self._struck()})}
        return Proof(struck, evidence)

    def _struck(self) -> list[tuple[Link, LoseCommit]]:
        return [(link, order) for link, order in self.orders if order.struck.is_set()]

    def _withdraw(self) -> None:
        for link, order in self.orders:
            if order in link.orders:
                link.orders.remove(order)

    def heal(self, rig: Rig) -> None:
        self._withdraw()
        self.after["units_unknown"] = self.journals.count('"outcome":"unknown"')
