"""Spans as they are told, for tests that look at them without a collector."""

from typing import Any


class Collected(list[Any]):
    """In place of the thread that exports."""

    def full(self) -> bool:
        return False

    def put(self, span: Any) -> None:
        self.append(span)
