"""Each nemesis alone on a real system under a small load: it strikes with proof, is healed, everything launched ends as planned, nothing is lost and nothing happens twice.

A layer of its own, run by the chaos lanes and not by `make test`. What cannot be had on this machine is skipped by name with its reason. `-k N12` takes one.
"""

import pytest

from tests.chaos.nemeses.catalogue import NEMESES, UNDECIDED
from tests.chaos.rig import Rig
from tests.nemeses.ground import alone

CASES = [
    (name, target, variant)
    for name, kind in NEMESES.items()
    for target in {"N1": ("", "scheduler", "executor-job"), "N2": ("", "scheduler"), "N3": kind.components}.get(name, ("",))
    for variant in (dict.fromkeys(kind.variants) or ("",))
    if name != "N21"  # Needs a database on a disk of its own: test_disk_full.py.
]


@pytest.mark.parametrize(("name", "target", "variant"), CASES, ids=["-".join(filter(None, each)).replace(" ", "_") for each in CASES])
def test_a_nemesis_strikes_with_proof_and_nothing_is_lost_or_twice(rig: Rig, name: str, target: str, variant: str) -> None:
    alone(rig, NEMESES[name](target, variant))


@pytest.mark.parametrize(("name", "why"), UNDECIDED.items(), ids=list(UNDECIDED))
def test_what_we_do_not_have_is_told_by_name(name: str, why: str) -> None:
    assert name not in NEMESES
    pytest.skip(f"{name} UNDECIDED: {why}")
