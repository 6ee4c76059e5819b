"""What is drawn from the code stands as the code says."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_state_machine_md_is_drawn_from_the_tables():
    drawn = runpy.run_path(str(DOCS / "draw_state_machine.py"))["draw"]()
    assert (DOCS / "state_machine.md").read_text() == drawn, "run: python docs/draw_state_machine.py"
