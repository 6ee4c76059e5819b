"""Whether what a receiver got of one launch is a connected tree, by the rules of observability/__init__.py: parents say where something belongs, links what caused it."""

from collections.abc import Collection, Iterator, Sequence

from tests.support.otlp_receiver import Receiver, Span

DEPTH_MAX = 5
OF_A_TASK = ("airavata.task.type", "airavata.task.attempt", "airavata.attempt.epoch")
SKELETON = "airavata-experiments"


def the(spans: Sequence[Span], name: str) -> list[Span]:
    """By the span's name; a topic's without what a test puts before it."""
    return [each for each in spans if plain(each.name) == name]


def plain(name: str) -> str:
    verb, _, target = name.partition(" ")
    return f"{verb} {target.rpartition('.')[2]}" if verb in {"send", "process"} else name


def faults(receiver: Receiver, trace_id: str, *, outside: Collection[str] = (), lost: bool = False) -> list[str]:
    """What is wrong with a trace; empty: it is one connected tree. `outside`: span ids of the gateway's own. `lost`: a process was killed before its last export, which costs leaves,
    so links to them; never a branch, and nothing that another process told."""
    spans = receiver.trace(trace_id)
    return [*_shape(spans, outside), *_bounds(spans), *_sent(spans), *([] if lost else _causes(spans, receiver))]


def _shape(spans: Sequence[Span], outside: Collection[str]) -> Iterator[str]:
    by_id = {each.id: each for each in spans}
    roots = [each for each in spans if not each.parent or each.parent in outside]
    if len(roots) != 1:
        yield f"{len(roots)} roots: {[each.name for each in roots]}"
    for each in spans:
        if each.parent and each.parent not in by_id and each.parent not in outside:
            yield f"{each.service} {each.name}: its parent {each.parent} did not come"
        above = by_id.get(each.parent)
        if above is not None and above.service != SKELETON and above.kind != "SERVER" and not above.name.startswith("unit of work"):
            yield f"{each.name} hangs on {above.name}, which a crash could take away"
        if len(list(_up(each, by_id))) > DEPTH_MAX:
            yield f"{each.name} is deeper than {DEPTH_MAX}"


def _up(span: Span, by_id: dict[str, Span]) -> Iterator[Span]:
    found: Span | None = span
    for _ in range(DEPTH_MAX + 2):
        if found is None:
            return
        yield found
        found = by_id.get(found.parent)


def _bounds(spans: Sequence[Span]) -> Iterator[str]:
    for each in spans:
        if not 0 < each.start <= each.end:
            yield f"{each.name} ends before it begins"
        if any(isinstance(value, str) and len(value) > 256 for value in each.attributes.values()):
            yield f"{each.name} has an attribute of more than 256 characters"
        if "airavata.experiment.id" not in each.attributes and each.name.partition(" ")[0] not in {"POST", "unit", "INSERT", "SELECT", "UPDATE", "DELETE", "SHOW", "ssh"}:
            yield f"{each.service} {each.name} does not say which experiment it belongs to"
        if missing := [name for name in OF_A_TASK if "airavata.task.id" in each.attributes and name not in each.attributes]:
            yield f"{each.service} {each.name} does not say {missing}"


def _sent(spans: Sequence[Span]) -> Iterator[str]:
    sent = {each.attributes["messaging.message.id"] for each in spans if each.name.startswith("send ")}
    for each in spans:
        if each.name.startswith("process ") and each.attributes["messaging.message.id"] not in sent:
            yield f"{each.name} {each.attributes['messaging.message.id']} was never sent"


def _causes(spans: Sequence[Span], receiver: Receiver) -> Iterator[str]:
    everywhere = {(each.trace, each.id) for each in list(receiver.spans)}
    for each in spans:
        for link in each.links:
            if link not in everywhere:
                yield f"{each.service} {each.name}: its link to {link} leads nowhere"
