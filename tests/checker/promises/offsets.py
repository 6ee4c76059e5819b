"""P14: how far Kafka is told that a group has read."""

from typing import Any

from tests.checker.promises.ownership import Where
from tests.checker.reading import Place
from tests.checker.tables import role
from tests.checker.verdicts import Promise


class OffsetsBehind(Promise):
    """`samples`: with committed offsets and positions; `offsets`: compared."""

    number, title, counts = "P14", "offsets never run ahead", ("samples", "offsets")
    needs = frozenset({"samples", "kafka", "groups", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.taken: list[tuple[list[Any], dict[Where, int], Place]] = []
        self.by_hand: set[tuple[str, str, int, int]] = set()

    def fault(self, line: Any, place: Place) -> None:
        self.by_hand.update((group, topic, part, offset) for group, topic, part, offset in line.get("offsets_set") or ())

    def sample(self, line: Any, place: Place) -> None:
        if line.get("committed") and line.get("positions"):
            self.count("samples")
            self.taken.append((line["committed"], {(group, topic, part): offset for group, topic, part, offset in line["positions"]}, place))

    def conclude(self) -> None:
        last = [[group, topic, int(part), offset] for group, topics in self.evidence.committed.items() for topic, parts in topics.items() for part, offset in parts.items()]
        self.taken.append((last, dict(self.evidence.positions), Place("kafka/groups.json", 1)))
        for committed, positions, place in self.taken:
            for group, topic, part, offset in committed:
                position = positions.get((group, topic, part))
                if position is None or (group, topic, part, offset) in self.by_hand:
                    continue
                self.count("offsets")
                if offset > position:
                    for each in self.evidence.between(group, topic, part, position, offset)[:1]:
                        text = f"Kafka was told {offset} for {role(group)} in {topic}[{part}] while its position was {position}, and {each.type} lies at {each.offset}"
                        self.broken(text, place, each.place)
