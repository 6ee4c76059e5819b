"""The event sink: hands the history to the API server. No database, no producer; a POST each second, if need be empty, is its heartbeat."""

from functools import partial

from app import VERSION
from app.errors import Misconfigured
from app.kafka import figures, topics
from app.lifecycle import Lifecycle, run
from components.event_sink.api_client import ApiClient
from components.event_sink.handler import Sink
from observability import metrics


def work(lifecycle: Lifecycle) -> None:
    """Build everything by hand, join, run until SIGTERM, leave."""
    settings = lifecycle.settings
    if not settings.internal_token:
        raise Misconfigured("AIRAVATA_INTERNAL_TOKEN (or …_FILE): a token of role service is wanted")
    name = settings.topics.events
    uuids = lifecycle.wait_for_topics([name], partitions=settings.partitions)
    if lifecycle.stop.is_set():
        return
    sink = Sink(
        api=ApiClient(settings.internal_url, settings.internal_token, lifecycle.instance, VERSION), group=topics.full_group(settings.environment, topics.SINK_GROUP), topic=name,
        brokers=settings.brokers, session_timeout_ms=settings.session_timeout_ms, topic_uuids=uuids,
    )  # fmt: skip
    lifecycle.ready = lambda: sink.consumer.missing
    metrics.watch(partial(figures.readings, sink.consumer, settings.partitions))
    while not lifecycle.stop.is_set():
        sink.turn()
        lifecycle.turned()
    sink.consumer.close()


if __name__ == "__main__":
    run("event-sink", work, database=False)
