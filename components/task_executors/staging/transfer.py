"""One file between storage and host, so that nothing half is ever visible and nothing unequal is ever kept.

To the host: a part file of this attempt and epoch (nobody writes into a file another epoch may have open), begun with a copy of the longest predecessor's part, continued by
range, hashed by the host, then fsync and rename. From the host: streamed into the storage's own part. Size and SHA-256 at the destination equal the source, or it is not there.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from app import failpoint
from app.storage import AccessDenied, Full, NotFound, Storage, StorageFault, Unsafe, open_storage, parse
from app.storage.inline import InlineStorage
from components.task_executors.plugin import OperationFailed, Transfer, Transferred
from components.task_executors.remote_host import RemoteHost

HOST = "host:"
Storages = Mapping[str, tuple[Mapping[str, Any], bytes | None]]


def transfer(operation: Transfer, host: RemoteHost, storages: Storages, token: str, epoch: int) -> Transferred:
    """Raises OperationFailed: NOT_FOUND, NOT_SAFE, STORAGE_DENIED, STORAGE_FULL, STORAGE_UNAVAILABLE, CHECKSUM, and whatever the host says."""
    part = f"{token}.{epoch}"
    try:
        if operation.target.startswith(HOST):
            storage, path = _opened(operation.source, storages)
            return _to_host(storage, path, host, operation.target.removeprefix(HOST), part=part, token=token, expected=operation.sha256)
        storage, path = _opened(operation.target, storages)
        return _from_host(host, operation.source.removeprefix(HOST), storage, path, part=part, expected=operation.sha256)
    except StorageFault as fault:
        raise _failed(fault) from fault


def scheme(operation: Transfer, storages: Storages) -> str:
    """Of the storage side, as the metric says it."""
    uri = operation.source if operation.target.startswith(HOST) else operation.target
    if uri.startswith("data:"):
        return "inline"
    kind = storages.get(uri.partition("://")[2].partition("/")[0], ({}, None))[0].get("kind", "POSIX")
    return str(kind).lower()


def _opened(uri: str, storages: Storages) -> tuple[Storage, str]:
    if uri.startswith("data:"):
        return InlineStorage(uri), ""
    storage_id, path = parse(uri)
    if storage_id not in storages:
        raise NotFound(f"The storage {storage_id} is not there any more.")
    return open_storage(*storages[storage_id]), path


def _to_host(storage: Storage, path: str, host: RemoteHost, target: str, *, part: str, token: str, expected: str | None) -> Transferred:
    size = storage.size(path)
    source = _digest(storage.open_read(path))
    _check(source, expected, "the file in the storage is not the one that was declared")
    if host.size(target) == size and host.digest(target) == (size, source):
        return Transferred(size, source, reused=True)
    mine = f"{target}.part.{part}"
    begun = _begin(host, target, mine, token, size)
    if begun:
        begun = begun if _digest(_first(storage.open_read(path), begun)) == host.digest(mine)[1] else 0  # What a predecessor left is trusted only if it is equal.
    with host.open_write(mine, begun) as file:
        for piece in storage.open_read(path, begun):
            file.send(piece)
            failpoint.hit("staging.part.after")
    if host.digest(mine) != (size, source):
        host.run(("rm", "-f", mine))
        raise OperationFailed("CHECKSUM", "What arrived on the compute host is not what was sent; it was removed and will be sent again.", certain=False, raw=target)
    failpoint.hit("staging.rename.before")
    host.publish(mine, target)
    failpoint.hit("staging.rename.after")
    host.run(("sh", "-c", 'rm -f -- "$1".part."$2".*', "sh", target, token))
    failpoint.hit("staging.manifest.after")  # Size and hash are known, and told to nobody yet.
    return Transferred(size, source, resumed=begun > 0)


def _begin(host: RemoteHost, target: str, mine: str, token: str, size: int) -> int:
    """How many bytes of my part are there already: a copy of the longest part an earlier epoch left."""
    script = (
        'n=0; for p in "$1".part."$2".*; do [ -f "$p" ] && [ ! -h "$p" ] && [ "$p" != "$3" ] || continue; s=$(wc -c <"$p"); [ "$s" -gt "$n" ] && n=$s && l=$p; done; '
        '[ "$n" -gt 0 ] && [ "$n" -le "$4" ] && cp -- "$l" "$3" && wc -c <"$3" || { rm -f -- "$3"; echo 0; }'
    )
    ran = host.run(("sh", "-c", script, "sh", target, token, mine, str(size)), timeout_seconds=600.0)
    text = ran.stdout.strip()
    return int(text) if ran.exit_status == 0 and text.isdigit() else 0


def _from_host(host: RemoteHost, source: str, storage: Storage, path: str, *, part: str, expected: str | None) -> Transferred:
    size, digest = host.digest(source)
    _check(digest, expected, "the file on the compute host is not the one that was declared")
    try:
        if storage.size(path) == size and _digest(storage.open_read(path)) == digest:
            return Transferred(size, digest, reused=True)
    except NotFound:
        pass
    running = hashlib.sha256()

    def checked() -> Iterator[bytes]:
        for piece in host.open_read(source):
            running.update(piece)
            yield piece
            failpoint.hit("staging.part.after")
        if running.hexdigest() != digest:  # Raised inside the write: nothing becomes visible.
            raise OperationFailed("CHECKSUM", "The file changed on the compute host while it was fetched; it will be fetched again.", certain=False, raw=source)
        failpoint.hit("staging.rename.before")

    storage.write(path, checked(), part=part)
    failpoint.hit("staging.rename.after")
    return Transferred(size, digest)


def _digest(pieces: Iterator[bytes]) -> str:
    running = hashlib.sha256()
    for piece in pieces:
        running.update(piece)
    return running.hexdigest()


def _first(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[:most]
        most -= len(piece)
        if most <= 0:
            return


def _check(found: str, expected: str | None, sentence: str) -> None:
    if expected is not None and found != expected:
        raise OperationFailed("DECLARED_CHECKSUM", f"The checksum does not fit: {sentence}.", certain=True, raw=f"SHA-256 is {found}, declared was {expected}")


def _failed(fault: StorageFault) -> OperationFailed:
    codes = {NotFound: "NOT_FOUND", Unsafe: "NOT_SAFE", AccessDenied: "STORAGE_DENIED", Full: "STORAGE_FULL"}
    return OperationFailed(codes.get(type(fault), "STORAGE_UNAVAILABLE"), str(fault), certain=False, raw=repr(fault.__cause__)[:300])
