"""A `data:` URI as a storage of one file, read-only, at most 64 KiB."""

from collections.abc import Iterable, Iterator

from app.storage import AccessDenied, Unsafe
from app.workflow.inputs import inline_bytes


class InlineStorage:
    def __init__(self, uri: str) -> None:
        try:
            self.content = inline_bytes(uri)
        except ValueError as fault:
            raise Unsafe(f"The data: URI cannot be read: {fault}.") from fault

    def size(self, path: str) -> int:
        return len(self.content)

    def open_read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        if self.content[offset:]:
            yield self.content[offset:]

    def write(self, path: str, pieces: Iterable[bytes], *, part: str) -> int:
        raise AccessDenied("A data: URI cannot be written.")
