"""What is decided about traces without any server: whether to sample, what came broken, what a span may say, and how few of them are kept."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from app.kafka import spans as consuming
from app.kafka.consumer import Held, Received
from app.messages import codec, commands, trace
from app.messages.envelope import Envelope, Subject
from app.mysql.engine import summary
from components.task_executors.diary import SPANS_MAX, Diary, Did
from components.task_executors.plugin import OperationFailed
from observability import exporting, metrics, tracing
from outbox_relay import spans as sending
from tests.support.otlp_receiver import Receiver, receiver
from tests.support.remote_orders import an_order
from tests.support.told_spans import Collected

SAMPLED, UNSAMPLED = ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-" + flags for flags in ("01", "00"))
TOLD = Collected()


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Switched on at ratio 0.1, with its whole ration of wishes."""
    TOLD.clear()
    monkeypatch.setattr(tracing, "_process", tracing._Process(exporting=TOLD, ratio=0.1, granted_at=0.0))
    yield


def low(share: float) -> str:
    return f"{1:016x}{int(share * 2**64):016x}"


def test_the_head_decision_is_by_ratio_on_the_trace_id_and_always_for_operators(on: None) -> None:
    assert tracing.decide(low(0.09))
    assert not tracing.decide(low(0.11))
    assert tracing.decide(low(0.99), always=True)


def test_a_gateways_wish_is_granted_five_times_a_second_and_then_declined(on: None) -> None:
    assert sum(tracing.decide(low(0.5), wished=True) for _ in range(50)) == tracing.GRANTS_PER_SECOND


def test_switched_off_nothing_is_ever_sampled_nor_made() -> None:
    assert not tracing.on()
    assert not tracing.decide(low(0.0), always=True, wished=True)
    assert not tracing.wanted(SAMPLED)
    tracing.tell("a span", SAMPLED, start=1, end=2)
    assert tracing.waiting() == 0


def test_flags_are_bits(on: None) -> None:
    assert [tracing.wanted(SAMPLED[:53] + flags) for flags in ("00", "01", "02", "03", "ff")] == [False, True, False, True, True]


@pytest.mark.parametrize("broken", ["00-zz", SAMPLED + "-x", SAMPLED[:53] + "0", "00-" + "0" * 32 + SAMPLED[35:], SAMPLED[:36] + "0" * 16 + SAMPLED[52:], "x" * 54 + "1"])
def test_a_broken_context_is_dropped_and_counted(on: None, broken: str) -> None:
    before = [metrics.value("airavata_context_invalid_total", from_=each) for each in ("event", "message")]
    assert not tracing.wanted(broken, came_in="event")
    came, good = ([*(record(traceparent=each.encode()).headers or ()), ("schema_version", b"1")] for each in (broken, SAMPLED))
    assert consuming.sampled(replace(record(), headers=came)) is None
    assert [replace(record(), headers=each).decode().traceparent for each in (came, good)] == ["", SAMPLED]
    assert [metrics.value("airavata_context_invalid_total", from_=each) for each in ("event", "message")] == [each + 1 for each in before]


def test_a_callers_context_with_too_much_baggage_is_dropped_and_one_that_is_none_is_not_counted(on: None) -> None:
    before = metrics.value("airavata_context_invalid_total", from_="request")
    assert tracing.given({}) == ""
    assert tracing.given({"traceparent": SAMPLED, "tracestate": "a=b"}) == SAMPLED
    assert tracing.given({"traceparent": SAMPLED, "tracestate": "a=" + "b" * 512}) == ""
    assert metrics.value("airavata_context_invalid_total", from_="request") == before + 1


def test_values_are_cut_empty_ones_left_out_and_links_beyond_what_is_kept_are_counted(on: None) -> None:
    tracing.tell("a span", SAMPLED, start=5, end=3, attributes={"long": "x" * 300, "none": None, "empty": "", "zero": 0}, links=[SAMPLED] * 130, error="OOPS")
    (span,) = TOLD
    assert span.attributes == {"long": "x" * 256, "zero": 0, "airavata.links.left_out": 2, "error.type": "OOPS"}
    assert len(span.links) == exporting.LINKS_MAX
    assert span.start_time == span.end_time == 5, "a clock that was set back ends no span before it began"


def test_a_value_that_no_field_is_for_is_told_as_text() -> None:
    """It would cost its whole batch when it is encoded."""
    span = exporting.made("x", SAMPLED, Resource({}), start=1, end=2, attributes={"list": ["a", 1], "at": datetime(2026, 1, 2), "yes": True, "many": 3})
    assert span.attributes == {"list": "['a', 1]", "at": "2026-01-02 00:00:00", "yes": True, "many": 3}
    assert ExportTraceServiceRequest.FromString(exporting.encoded([span]))


def test_what_the_relay_reads_of_a_stored_header_list_is_what_the_codec_wrote() -> None:
    for traceparent in (SAMPLED, UNSAMPLED, ""):
        envelope = Envelope(mid=bytes(16), topic="t", partition=0, subject=Subject("g", "e", "p"), body=commands.RunTask("att_1"), traceparent=traceparent)
        assert codec.traceparent_of(codec.encode(envelope).headers) == traceparent
    assert codec.traceparent_of(b"traceparent\xc4\x37short") == ""
    assert codec.traceparent_of(codec.pack_headers([("mid", b"x")])) == ""


def test_a_process_span_is_named_by_its_step_and_message_and_by_nothing_else() -> None:
    named = trace.processing(SAMPLED, "scheduler.commit#0123456789ab", "ff" * 16)
    assert (named[:36], named[52:]) == (SAMPLED[:36], "-01")
    assert named == trace.processing(SAMPLED[:36] + "1" * 16 + "-01", "scheduler.commit#0123456789ab", "ff" * 16)
    assert named != trace.processing(SAMPLED, "scheduler.commit#0123456789ac", "ff" * 16)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT a FROM tasks t WHERE t.secret = 'x'", ("SELECT", "tasks", "SELECT tasks")), ("INSERT INTO outbox (a) VALUES (%s)", ("INSERT", "outbox", "INSERT outbox")),
        ("UPDATE attempts SET a = 1", ("UPDATE", "attempts", "UPDATE attempts")), ("DELETE FROM timers WHERE id IN (%s)", ("DELETE", "timers", "DELETE timers")),
        ("SELECT UTC_TIMESTAMP(6)", ("SELECT", "", "SELECT")),
    ],
)  # fmt: skip
def test_a_statement_is_told_by_verb_and_table(statement: str, said: tuple[str, str, str]) -> None:
    assert summary(statement) == said


# ---- workers ------------------------------------------------------------------------------------------------------------------------------------------
def test_a_worker_says_what_it_did_and_folds_the_spans_that_are_too_many() -> None:
    """Every operation is measured; only so many are spans."""
    sent: list[Did] = []
    diary = Diary(an_order(), sent.append)
    for _ in range(SPANS_MAX + 7):
        diary.write("ssh exec sh", 1, **{"process.exit.code": 0})
    diary.close()
    assert [each.name for each in sent if each.span] == ["ssh exec sh"] * SPANS_MAX + ["ssh more"]
    assert sum(each.measured for each in sent) == SPANS_MAX + 7
    assert sent[-1].attributes == {"airavata.spans.folded": 7}


def test_an_order_that_is_not_sampled_has_no_spans() -> None:
    sent: list[Did] = []
    diary = Diary(structs.replace(an_order(), traceparent=UNSAMPLED), sent.append)
    diary.write("ssh exec sh", 1)
    diary.close()
    assert [each.span for each in sent] == [False]


@pytest.mark.parametrize(("certain", "outcome"), [(True, "failed"), (False, "unknown")])
def test_a_failed_operation_is_told_with_what_is_known_of_it(certain: bool, outcome: str) -> None:
    sent: list[Did] = []
    Diary(an_order(), sent.append).write("ssh exec submit", 1, fault=OperationFailed("SSH_LOST", "the words of a host", certain=certain, raw="secret"))
    assert (sent[0].error, sent[0].attributes) == ("SSH_LOST", {"airavata.outcome": outcome})


# ---- the way out --------------------------------------------------------------------------------------------------------------------------------------
class Stuck:
    """A collector's client that never comes back."""

    def export(self, _spans: object) -> None:
        threading.Event().wait()


def test_a_full_queue_drops_counts_and_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "CLOSE_SECONDS", 0.1)
    out = exporting.Exporting("http://127.0.0.1:9/v1/traces", delay_seconds=60.0)
    out.exporter = Stuck()
    monkeypatch.setattr(tracing, "_process", tracing._Process(exporting=out))
    before = metrics.value("airavata_spans_total", outcome="queue_full")
    for _ in range(exporting.QUEUE_MAX + exporting.BATCH + 100):
        tracing.tell("a span", SAMPLED, start=1, end=2)
    assert len(out.queue) <= exporting.QUEUE_MAX
    assert metrics.value("airavata_spans_total", outcome="queue_full") >= before + 100
    out.close()
    assert out.thread.is_alive(), "it was abandoned, not waited for"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Gets what this process tells."""
    monkeypatch.setattr(tracing, "_process", tracing._Process())
    monkeypatch.setattr(exporting, "REQUEST_SECONDS", 0.5)
    with receiver() as made:
        tracing.begin(made.url, component="api", name="i", version="1", environment="test", ratio=1.0, delay_seconds=60.0)
        yield made
        tracing.close()


def a_span() -> Any:
    return tracing.made("a span", SAMPLED, parent="", start=1, end=2)


def counted() -> dict[str, float]:
    return {outcome: metrics.value("airavata_spans_total", outcome=outcome) for outcome in ("exported", "export_failed")}


def test_a_told_span_arrives_as_it_was_told(collector: Receiver) -> None:
    above, attributes = SAMPLED[:36] + "1" * 16 + "-01", {"text": "ä" * 300, "number": -7, "large": 2**40, "share": 0.5, "yes": True, "no": False, "zero": 0, "none": None, "empty": ""}
    tracing.tell("process a", SAMPLED, parent=above, start=5, end=3, kind=tracing.CONSUMER, attributes=attributes, links=[above] * 130, events=[("commit", 4)], error="OOPS")
    tracing.tell("send a", above, start=1, end=2**62, kind=tracing.CLIENT)
    tracing.close()
    first, second = collector.spans
    assert (first.service, first.instance, first.name, first.kind, first.trace, first.id, first.parent) == ("airavata-api", "i", "process a", "CONSUMER", SAMPLED[3:35], SAMPLED[36:52], "1" * 16)
    told = {"text": "ä" * 256, "number": -7, "large": 2**40, "share": 0.5, "yes": True, "no": False, "zero": 0}
    assert first.attributes == told | {"airavata.links.left_out": 2, "error.type": "OOPS"}
    assert first.links == ((SAMPLED[3:35], "1" * 16),) * exporting.LINKS_MAX
    assert (first.start, first.end, first.error, first.events) == (5, 5, True, ("commit",))
    assert (second.parent, second.kind, second.end, second.error, second.attributes, second.links) == ("", "CLIENT", 2**62, False, {}, ())


VALUES = st.one_of(st.text(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.binary(max_size=9))
SOME_CONTEXTS = st.builds("00-{:032x}-{:016x}-01".format, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))


@st.composite
def spans(draw: st.DrawFn) -> Any:
    start, kind = draw(st.integers(0, 2**62)), draw(st.sampled_from([tracing.INTERNAL, tracing.SERVER, tracing.CLIENT, tracing.CONSUMER]))
    told = {"parent": draw(st.one_of(st.just(""), SOME_CONTEXTS)), "links": draw(st.lists(SOME_CONTEXTS, max_size=3)), "attributes": draw(st.dictionaries(st.text(), VALUES, max_size=5))}
    events, error = draw(st.lists(st.tuples(st.text(), st.integers(0, 2**62)), max_size=2)), draw(st.sampled_from(["", "OOPS"]))
    resource = draw(st.sampled_from(RESOURCES))
    return exporting.made(draw(st.text(max_size=200)), draw(SOME_CONTEXTS), resource, start=start, end=start + draw(st.integers(0, 2**40)), kind=kind, events=events, error=error, **told)


RESOURCES = [Resource({"service.name": each, "service.version": "x" * 200}) for each in ("airavata-api", "airavata-experiments")]


@given(st.lists(spans(), min_size=1, max_size=5))
def test_a_request_says_what_the_sdks_own_encoder_would_have(told: list[Any]) -> None:
    assert ExportTraceServiceRequest.FromString(exporting.encoded(told)) == encode_spans(told)


def test_what_is_queued_arrives_also_at_the_very_end(collector: Receiver) -> None:
    for _ in range(exporting.BATCH + 3):
        tracing.tell("a span", SAMPLED, start=1, end=2)
    tracing.close()
    assert len(collector.spans) == exporting.BATCH + 3
    assert tracing.export([a_span()])
    assert counted() == {"exported": exporting.BATCH + 4, "export_failed": 0}


@pytest.mark.parametrize("manners", [{"answer": 503}, {"delay_seconds": 60.0}], ids=["refuses", "never answers"])
def test_a_collector_that_does_not_take_them_costs_its_spans_and_little_time(collector: Receiver, manners: dict[str, Any]) -> None:
    for name, value in manners.items():
        setattr(collector, name, value)
    assert not tracing.export([a_span()])
    tracing.tell("a span", SAMPLED, start=1, end=2)
    began = time.monotonic()
    tracing.close()
    assert time.monotonic() - began < exporting.CLOSE_SECONDS + 1.0
    assert counted() == {"exported": 0, "export_failed": 2}


def test_a_collector_that_is_not_there_is_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "REQUEST_SECONDS", 0.5)
    out = exporting.Exporting("http://127.0.0.1:9/v1/traces", delay_seconds=60.0)
    assert not out.export([a_span()])
    out.close()
    assert counted() == {"exported": 0, "export_failed": 1}


GOOD = [("mid", b"m" * 16), ("type", b"TaskStarted"), ("subject", b"gw/exp/prc/tsk/NOOP/1/1"), ("cause", b"a#b:c"), ("traceparent", f"00-{'1' * 32}-{'2' * 16}-01".encode())]


def record(**changed: bytes | None) -> Received:
    return Received("t", 0, 0, "k", [(name, changed.get(name, value)) for name, value in GOOD], b"{}", 0)


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("a bug of the tracing's own")


@pytest.mark.parametrize("name", [name for name, _ in GOOD])
@pytest.mark.parametrize("value", [None, b""])
def test_a_record_whose_headers_are_null_or_empty_is_consumed_without_a_span(on: None, name: str, value: bytes | None) -> None:
    assert consuming.sampled(record()) is not None
    assert consuming.sampled(record(**{name: value})) is None


def test_who_tells_a_span_and_fails_at_it_has_done_its_work(on: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that has committed, rows that are sent: an exception there would take them for failed."""
    monkeypatch.setattr(metrics, "strict", False)
    monkeypatch.setattr(tracing, "tell", broken)
    row = SimpleNamespace(headers=codec.pack_headers(GOOD), topic="t", part=0, mid=b"m" * 16, k="k")
    sending.tell([row], shard=0, outcome="committed", began=0)
    batch = consuming.Batch([record()], group="g", polled=0)
    batch.decided(SimpleNamespace(info={"step": "s#1", "verdicts": {}}), [record()], datetime(2026, 1, 1))
    batch.applied({("t", 0): Held(1, 0, 0)}, without=(), tries=0)


def test_a_unit_of_work_that_has_committed_stays_so_whatever_makes_its_span(on: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "strict", False)
    monkeypatch.setattr(tracing, "made", broken)
    with tracing.within(SAMPLED), tracing.unit("a.unit"):
        pass
