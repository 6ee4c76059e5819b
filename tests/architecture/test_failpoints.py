"""Code and catalogue of fail points agree, both ways, and every durable call stands between two points: "any step" is checked, not hoped."""

from fnmatch import fnmatchcase

import pytest

from tests.chaos.catalogue import BUILT, POINTS, UNITS
from tests.chaos.every_point import COMMANDS
from tests.chaos.freeze_frames import FRAMES
from tests.support import points_in_code as code

RELAY = "outbox_relay/relay.py"


def named_units() -> set[str]:
    return {name for file, text in code.sources() for name in code.units(file, text)}


def edges(units: set[str]) -> set[str]:
    """The points that units bring: of those that are no points by their reason, none."""
    return {f"{name}.{side}" for name in units for side in ("before", "after") if f"{name}.{side}" in BUILT}


def test_the_catalogue_names_what_the_code_has_and_nothing_else() -> None:
    explicit = {name for file, text in code.sources() for name in code.points(file, text) if code.ANY_UNIT not in name}
    units = named_units()
    assert explicit & edges(units) == set(), "named twice: by a unit of work and by a call"
    found = explicit | edges(units) | code.script_points()
    assert (sorted(found - BUILT.keys()), sorted(BUILT.keys() - found)) == ([], [])


def test_every_unit_of_work_is_a_point_or_says_why_not() -> None:
    units = {each for each in named_units() if not each.endswith(".read")}
    both = {each for each in units if f"{each}.before" in BUILT and f"{each}.after" in BUILT}
    excused = {each for each in units - both if any(fnmatchcase(each, pattern) for pattern in UNITS)}
    assert sorted(units - both - excused) == []
    assert [pattern for pattern in UNITS if pattern != "dev.*" and not any(fnmatchcase(each, pattern) for each in units)] == []


def test_the_page_has_98_points_and_those_of_parts_not_built_are_told_apart() -> None:
    page = [name for name, point in POINTS.items() if point.page]
    assert len(page) == 98
    assert sorted({point.part for point in POINTS.values() if point.part}) == ["batch systems", "cancel"]


def test_every_point_that_is_built_has_a_frame_or_is_a_commands() -> None:
    assert (sorted(BUILT.keys() - FRAMES.keys()), sorted(FRAMES.keys() - BUILT.keys())) == (sorted(COMMANDS), [])


def test_every_durable_call_stands_between_two_points() -> None:
    assert [each for file, text in code.sources() for each in code.complaints(file, text)] == []


def relay() -> str:
    return (code.ROOT / RELAY).read_text()


@pytest.mark.parametrize("line", [line.strip() for line in relay().splitlines() if "failpoint.hit(" in line])
def test_a_point_taken_out_of_the_relay_is_missed(line: str) -> None:
    poorer = relay().replace(line, "pass")
    assert code.points(RELAY, relay()) - code.points(RELAY, poorer), "the catalogue would not miss it"


@pytest.mark.parametrize("point", ["relay.init.before", "relay.init.after", "relay.commit.before", "relay.commit.after"])
def test_a_durable_call_that_lost_its_point_is_told(point: str) -> None:
    (line,) = [line for line in relay().splitlines() if f'"{point}"' in line]
    assert code.complaints(RELAY, relay()) == []
    assert code.complaints(RELAY, relay().replace(line, "")) != []


@pytest.mark.parametrize(
    ("behind", "added", "complaint"),
    [
        ('failpoint.hit("relay.commit.after", shard=self.shard)', "producer.commit()", "no fail point behind producer.commit"),
        ("        producer.commit()", "producer.commit()", "no fail point before producer.commit"),
        ("        producer.begin()", "self.client.produce(b'')", "client.produce, a driver's call outside its door"),
        ("        producer.begin()", "connection.commit()", "connection.commit, a driver's call outside its door"),
        ("        producer.begin()", "os.rename('a', 'b')", "os.rename, a driver's call outside its door"),
    ],
)
def test_a_durable_call_that_is_added_without_points_is_told(behind: str, added: str, complaint: str) -> None:
    line, *_ = [line for line in relay().splitlines() if line.rstrip().endswith(behind.strip())]
    indent = line[: len(line) - len(line.lstrip())]
    assert any(complaint in each for each in code.complaints(RELAY, relay().replace(line, f"{line}\n{indent}{added}")))


def test_a_unit_of_work_that_is_added_is_seen() -> None:
    added = relay().replace("def lease(self)", "def more(self):\n        with self.unit_of_work('relay.more') as tx:\n            tx.go()\n\n    def lease(self)")
    assert code.units(RELAY, added) - code.units(RELAY, relay()) == {"relay.more"}
    assert "relay.more.before" not in POINTS
