"""The task executors: one generic process that serves the task types it is told (`--types ENV_SETUP,ENV_CLEANUP`); the job executor also watches jobs, per host."""

import argparse
import threading
import time
from functools import partial

from app import plugins, secrets
from app.errors import Misconfigured
from app.lifecycle import Lifecycle, run
from app.messages.topics import executor_group
from app.mysql import engine
from app.mysql.answering import Answering
from app.mysql.unit_of_work import UnitOfWork, unit_of_work
from app.nudge import Nudge
from components.task_executors import figures
from components.task_executors.executor import Executor
from components.task_executors.plugin import TaskType
from components.task_executors.remote import Workers
from components.task_executors.watch import Watcher
from components.task_executors.ways import Ways
from components.task_executors.worker import Arming
from components.task_executors.workers import Pool
from observability import metrics

HELD_MAX = 10_000  # With what waits for full hosts.
FINISH_SECONDS = 20.0
WATCH_TYPE = "JOB_SUBMISSION"


def types_of(names: list[str]) -> dict[str, TaskType]:
    installed = plugins.task_types()
    if unknown := sorted(set(names) - set(installed)):
        raise Misconfigured(f"--types names {', '.join(unknown)}; installed are {', '.join(sorted(installed))}")
    if (group := sorted(each for each in installed if executor_group(each) == executor_group(names[0]))) != sorted(names):
        raise Misconfigured(f"--types names {', '.join(names)}: members of a consumer group read the same topics, so {executor_group(names[0])} serves {','.join(group)}")
    return {name: installed[name] for name in names}


def work(lifecycle: Lifecycle, names: list[str]) -> None:
    """Build everything by hand, join, run until SIGTERM; finish what ends in time, hand back the rest by removing the instance row."""
    settings, topics = lifecycle.settings, lifecycle.settings.topics
    mine = types_of(names)
    local = all(each.local for each in mine.values())
    arming = Arming(settings.failpoints, settings.environment, settings.struck_directory, settings.journal, f"{settings.journal_who or lifecycle.instance}/worker")
    pools = [] if local else [Pool(settings.workers, arming=arming), *([Pool(2, arming=arming)] if WATCH_TYPE in mine else [])]  # Before any thread.
    database = engine.connect(settings.mysql_url, size=2)
    begin = unit_of_work(database, nudge=Nudge(settings.nudge_to).send, compatibility=settings.compatibility)
    unit = Answering(begin)
    lifecycle.wait_for_database(database)
    ways = Ways(secrets.master_key(settings.master_key)) if pools else None
    remote = Workers(pool=pools[0], unit_of_work=unit, task_types=mine, ways=ways, owner=lifecycle.instance) if ways else None
    capacity = HELD_MAX if local else settings.capacity or 4 * settings.workers
    executor = Executor(unit_of_work=unit, instance=lifecycle.instance, task_types=mine, topics=topics, placement=settings.placement, capacity=capacity, remote=remote)
    loop = lifecycle.consume(group=executor_group(names[0]), names=[topics.task(each) for each in sorted(names)], wants=frozenset({"RunTask"}), unit_of_work=unit, handler=executor, commit="start_commit")
    metrics.known("task_type", names)
    metrics.watch(executor.gauges)
    if remote is not None:
        metrics.watch(partial(figures.connections, remote.pool, remote.ways))
    watching = _watch(lifecycle, Answering(begin), pools[1], Ways(secrets.master_key(settings.master_key))) if len(pools) > 1 else None
    while not lifecycle.stop.is_set():
        lifecycle.each_turn(unit)  # First: without an instance row what the first poll brings would be taken for a silent owner's.
        free = min(capacity + (remote.standing if remote else 0), HELD_MAX) - len(executor.held)
        loop.capacity_full, loop.batch_size, loop.poll_seconds = free <= 0, max(1, min(1000, free)), executor.seconds_to_next
        loop.turn()
        executor.step()
    loop.close()
    _finish(executor, lifecycle, unit)
    if watching is not None:
        watching.join(10.0)
    if remote is not None:
        remote.close()
    lifecycle.leave(unit)


def _finish(executor: Executor, lifecycle: Lifecycle, unit: UnitOfWork) -> None:
    """What ends within 20 s is finished; longer work is cut off, its outcome unknown, and handed back."""
    ends_at = time.monotonic() + FINISH_SECONDS
    while executor.held and time.monotonic() < ends_at:
        executor.step()
        lifecycle.each_turn(unit)
        time.sleep(0.02)


def _watch(lifecycle: Lifecycle, unit: Answering, pool: Pool, ways: Ways) -> threading.Thread:
    settings = lifecycle.settings
    watcher = Watcher(
        unit_of_work=unit, pool=pool, ways=ways, instance=lifecycle.instance, topics=settings.topics, placement=settings.placement, interval_seconds=settings.watch_interval_ms / 1000,
        lease_seconds=settings.lease_seconds,
    )  # fmt: skip

    metrics.watch(partial(figures.connections, pool, ways))
    metrics.watch(lambda: figures.looks(watcher.hosts))

    def watch() -> None:
        while not lifecycle.stop.wait(0.02 if any(each.looking for each in watcher.hosts.values()) else 0.1):
            watcher.turn()
        watcher.leave()

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    return thread


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m components.task_executors", description=__doc__)
    parser.add_argument("--types", required=True, help="task types, separated by commas")
    given = parser.parse_args().types.split(",")
    run(executor_group(given[0]), lambda lifecycle: work(lifecycle, given))
