"""Making topics, as the library's futures answer: without a broker."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from app.errors import StoreUnavailable
from app.kafka import topics

THERE, REFUSED = KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS)), KafkaException(KafkaError(KafkaError.POLICY_VIOLATION))


def a_client(**answers: Exception | None) -> Any:
    """Topic → what its making is answered with; None: it was made."""
    futures: dict[str, Future[None]] = {name: Future() for name in answers}
    for name, answer in answers.items():
        if answer is None:
            futures[name].set_result(None)
        else:
            futures[name].set_exception(answer)
    return SimpleNamespace(create_topics=lambda _new, **_: futures)


def test_a_topic_that_somebody_else_made_meanwhile_is_as_good() -> None:
    said: list[str] = []
    topics.make(a_client(one=THERE, two=None), [], said.append)
    assert said == ["made topic two"]


def test_a_topic_that_cannot_be_made_is_told_by_name_although_another_was_there_before_it() -> None:
    with pytest.raises(StoreUnavailable, match="topic two"):
        topics.make(a_client(one=THERE, two=REFUSED), [], lambda _: None)


def test_a_broker_that_does_not_answer_in_time_is_a_store_that_is_away() -> None:
    with pytest.raises(StoreUnavailable, match="topic one"):
        topics.make(a_client(one=TimeoutError("15 s")), [], lambda _: None)
