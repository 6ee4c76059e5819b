"""The load generator, a process of its own: several client connections that launch over REST like a gateway would. `python -m tests.bench.load PLAN` reads a JSON plan, writes a JSON answer.

A window of open experiments is kept full (`rate` 0), or launches are spaced evenly (`rate` per second). How many have ended is asked of the database by one cheap query,
so that the API server's CPU is that of launches alone; this process's own CPU is not counted.
"""

import http.client
import json
import os
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from tests.support.sql import connect

ASK_EVERY_SECONDS = 0.2  # Counting the ended costs the server something; a full window does not notice.


class Load:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan, self.sent, self.answers = plan, 0, list[tuple[str, float]]()
        self.lock, self.free, self.problems = threading.Lock(), threading.Semaphore(plan["window"]), list[str]()
        self.began = 0.0

    def run(self) -> dict[str, Any]:
        self.began = time.time()
        clients = [threading.Thread(target=self.client, args=(number,)) for number in range(self.plan["connections"])]
        for each in clients:
            each.start()
        ended = self.watch()
        for each in clients:
            each.join()
        return {"began": self.began, "seconds": ended - self.began, "answers": self.answers, "problems": self.problems, "cpu_seconds": sum(os.times()[:2])}

    def client(self, number: int) -> None:
        url = urlsplit(self.plan["urls"][number % len(self.plan["urls"])])
        connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port, timeout=60)
        while True:
            with self.lock:
                serial, self.sent = self.sent, self.sent + 1
            if serial >= self.plan["experiments"]:
                return
            self.free.acquire()
            if self.plan["rate"]:
                time.sleep(max(0.0, self.began + serial / self.plan["rate"] - time.time()))
            headers = {"Authorization": f"Bearer {self.plan['token']}", "Content-Type": "application/json", "Idempotency-Key": f"{self.plan['name']}-{serial}"}
            connection.request("POST", "/v1/experiments", json.dumps({**self.plan["body"], "name": f"{self.plan['name']} {serial}"}), headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 201:
                self.answers.append((json.loads(body)["id"], time.time()))
            else:
                self.problems.append(body.decode()[:300])
                self.free.release()

    def watch(self) -> float:
        """Gives places in the window back as experiments end; returns when all have."""
        done, deadline = 0, time.monotonic() + self.plan["seconds_max"]
        with connect(self.plan["database_url"]) as connection, connection.cursor() as cursor:
            while done + len(self.problems) < self.plan["experiments"]:
                if time.monotonic() > deadline:
                    self.problems.append(f"only {done} of {self.plan['experiments']} experiments ended within {self.plan['seconds_max']} s")
                    os._exit(self.give_up())
                time.sleep(0.002 if self.plan["window"] == 1 else ASK_EVERY_SECONDS)
                cursor.execute("SELECT COUNT(*) FROM experiments WHERE finished_at >= %s", (self.plan["since"],))
                row = cursor.fetchone()
                now_done = int(row[0]) if row else 0
                if now_done > done:
                    self.free.release(now_done - done)
                done = now_done
        return time.time()

    def give_up(self) -> int:
        print(json.dumps({"problems": self.problems}), flush=True)
        return 1


if __name__ == "__main__":
    print(json.dumps(Load(json.loads(sys.argv[1])).run()), flush=True)
