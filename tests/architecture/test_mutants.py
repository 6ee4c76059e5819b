"""A planted mistake that no longer applies plants nothing: whoever changed the code mends the patch (tests/mutants/)."""

from pathlib import Path

import pytest

from tests.mutants.planted import Planted, all_of_them, faults, strangers

ROWS = {1, 2, 3, 4, 5, 19, 20, 21, 22, 36, 38, 44, 46, 48}  # Those that real servers must find.


@pytest.mark.parametrize("planted", all_of_them(), ids=lambda each: each.patch.stem)
def test_a_planted_mistake_applies_compiles_is_small_and_says_what_must_find_it(planted: Planted, tmp_path: Path) -> None:
    assert faults(planted, tmp_path) == []


def test_every_mistake_that_real_servers_must_find_is_planted_and_none_is_expected_that_is_not() -> None:
    assert {int(each.number.rstrip("abc")) for each in all_of_them()} >= ROWS
    assert strangers() == []


def test_a_patch_that_no_longer_applies_is_told(tmp_path: Path) -> None:
    stale = tmp_path / "01-stale.patch"
    stale.write_text(all_of_them()[0].text.replace("outbox.delete", "outbox.remove"))
    assert any("does not apply" in each for each in faults(Planted(stale, {}), tmp_path / "copy"))
