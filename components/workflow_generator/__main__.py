"""The workflow generator: launched experiments get their tasks and edges, by the planner their interface names. Any number of instances."""

from app import plugins
from app.kafka.topics import GENERATOR_GROUP
from app.lifecycle import Lifecycle, run
from app.mysql import engine
from app.mysql.unit_of_work import unit_of_work
from app.nudge import Nudge
from app.workflow import generation
from components.workflow_generator.handler import Handler


def work(lifecycle: Lifecycle) -> None:
    """Build everything by hand, join, run until SIGTERM, leave."""
    settings = lifecycle.settings
    database = engine.connect(settings.mysql_url, size=1)
    unit = unit_of_work(database, nudge=Nudge(settings.nudge_to).send, compatibility=settings.compatibility)
    handler = Handler(planners=plugins.planners(settings.enabled_planners), topics=settings.topics, placement=settings.placement)
    lifecycle.wait_for_database(database)
    loop = lifecycle.consume(group=GENERATOR_GROUP, names=[settings.topics.launch], wants=generation.WANTED, unit_of_work=unit, handler=handler)
    loop.run(lifecycle.stop, lambda: lifecycle.each_turn(unit))
    loop.close()
    lifecycle.leave(unit)


if __name__ == "__main__":
    run("generator", work)
