"""Each step of the delivery protocol and of remote submission has a test that names it: in its name, an id of its parameters, or its docstring."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXT = "\n".join(path.read_text() for layer in ("integration", "chaos") for path in (TESTS / layer).glob("test_*.py"))
DELIVERY = [*(f"R{n}" for n in range(8)), *(f"C{n}" for n in range(6)), *(f"E{n}" for n in range(1, 4))]
SUBMISSION = ["0", "1", *(f"2 {each}" for each in ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii")), "3", "5", "6"]  # 4 releases a held job; FORK holds none.


@pytest.mark.parametrize("step", DELIVERY)
def test_a_delivery_step_is_named_by_a_test(step: str) -> None:
    named = set()
    for name in re.findall(r"def (test_\w+)", TEXT):
        named |= set(re.findall(r"(?<=_)[RCE]\d(?=_)", name))
        for kind, first, last in re.findall(r"([RCE])(\d)_to_\1(\d)", name):
            named |= {f"{kind}{n}" for n in range(int(first), int(last) + 1)}
    assert step in named


@pytest.mark.parametrize("step", SUBMISSION)
def test_a_step_of_submission_is_named_by_a_test(step: str) -> None:
    assert re.search(rf'"[^"]*\bstep {step}\b(?! [iv]+\b)', TEXT, re.IGNORECASE), f"no test names step {step} of docs/remote-submission.md"
