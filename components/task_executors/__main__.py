"""The task executors: one generic process that serves the task types it is told (`--types ENV_SETUP,ENV_CLEANUP`); the job executor also watches jobs, per host."""

import argparse

from app import plugins
from app.errors import Misconfigured
from app.kafka.topics import executor_group
from app.lifecycle import Lifecycle, run
from app.mysql import engine
from app.mysql.unit_of_work import unit_of_work
from app.nudge import Nudge
from components.task_executors.executor import Executor

LOCAL_CAPACITY = 10_000


def work(lifecycle: Lifecycle, types: list[str]) -> None:
    """Build everything by hand, join, run until SIGTERM; finish what ends in time, hand back the rest by removing the instance row."""
    settings = lifecycle.settings
    topics = settings.topics
    installed = plugins.task_types()
    if unknown := sorted(set(types) - set(installed)):
        raise Misconfigured(f"--types names {', '.join(unknown)}; installed are {', '.join(sorted(installed))}")
    mine = {name: installed[name] for name in types}
    database = engine.connect(settings.mysql_url, size=2)
    unit = unit_of_work(database, nudge=Nudge(settings.nudge_to).send)
    lifecycle.wait_for_database(database)
    capacity = LOCAL_CAPACITY if all(each.local for each in mine.values()) else settings.capacity or 4 * settings.workers
    executor = Executor(unit_of_work=unit, instance=lifecycle.instance, task_types=mine, topics=topics, placement=settings.placement, capacity=capacity, remote=None)
    loop = lifecycle.consume(group=executor_group(types[0]), names=[topics.task(each) for each in types], wants=frozenset({"RunTask"}), unit_of_work=unit, handler=executor)
    while not lifecycle.stop.is_set():
        free = capacity - len(executor.held)
        loop.capacity_full, loop.batch_size, loop.poll_seconds = free <= 0, max(1, min(1000, free)), executor.seconds_to_next
        loop.turn()
        executor.step()
        lifecycle.each_turn(unit)
    loop.close()
    lifecycle.leave(unit)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m components.task_executors", description=__doc__)
    parser.add_argument("--types", required=True, help="task types, separated by commas")
    names = parser.parse_args().types.split(",")
    run(executor_group(names[0]), lambda lifecycle: work(lifecycle, names))
