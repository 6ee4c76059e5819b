"""The task scheduler: walks the graphs. Alone writes the state of experiment (after launch), process and task. Any number of instances; a killed one is taken over."""

import threading
import time

from app import plugins
from app.kafka.topics import SCHEDULER_GROUP
from app.lifecycle import Lifecycle, run
from app.mysql import engine
from app.mysql.unit_of_work import unit_of_work
from app.nudge import Nudge
from app.workflow import scheduling
from components.task_scheduler.handler import Handler
from components.task_scheduler.skeletons import SkeletonLoop
from components.task_scheduler.sweeper import Sweeper
from components.task_scheduler.timers import TimerLoop
from observability import metrics, tracing

SWEEP_EVERY_SECONDS = 5.0


def work(lifecycle: Lifecycle) -> None:
    """Build everything by hand, join, run until SIGTERM, leave."""
    settings = lifecycle.settings
    topics, placement = settings.topics, settings.placement
    database = engine.connect(settings.mysql_url, size=3)
    unit = unit_of_work(database, nudge=Nudge(settings.nudge_to).send, compatibility=settings.compatibility)
    lifecycle.wait_for_database(database)
    metrics.known("task_type", plugins.task_types())
    handler = Handler(topics=topics, placement=placement)
    loop = lifecycle.consume(group=SCHEDULER_GROUP, names=[topics.events, topics.scheduler], wants=scheduling.WANTED, unit_of_work=unit, handler=handler)
    timers = TimerLoop(unit_of_work=unit, placement=placement, topics=topics, lease_seconds=settings.lease_seconds, purge_every_seconds=settings.purge_every_seconds)
    sweeper = Sweeper(unit_of_work=unit, placement=placement, topics=topics, after_seconds=settings.sweep_after_seconds, quiet=loop.consumer.quiet)
    thread = threading.Thread(target=timers.run, args=(lifecycle.stop.wait,), name="timers", daemon=True)
    thread.start()
    if tracing.on():
        threading.Thread(target=SkeletonLoop(unit).run, args=(lifecycle.stop.wait,), name="skeletons", daemon=True).start()
    swept = time.monotonic()

    def each_turn() -> None:
        nonlocal swept
        lifecycle.each_turn(unit)
        if time.monotonic() - swept > SWEEP_EVERY_SECONDS:
            swept = time.monotonic()
            sweeper.try_sweep()

    loop.run(lifecycle.stop, each_turn)
    loop.close()
    thread.join(5.0)
    lifecycle.leave(unit)


if __name__ == "__main__":
    run("scheduler", work)
