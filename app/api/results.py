"""What came of an experiment: its outputs with their content, and what its jobs printed.

Content streams from the storage to the client in pieces, outside any transaction: memory stays flat whatever the size, and a slow reader holds neither thread nor row.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from app import secrets, storage
from app.api import reading
from app.api.experiments import an_experiment
from app.api.insides import a_job, getting
from app.api.operations import Answer, Call, integer
from app.api.problems import Problem, or_404
from app.mysql import access, catalogue, outputs

TAIL_BYTES, TAIL_BYTES_MAX = 65_536, 1 << 20
CAPTURED_BYTES = 4096  # How much of the end of a log comes back with the job's end; a shorter one is the whole.
SANDBOX = {"Content-Security-Policy": "sandbox; default-src 'none'"}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


# ---- logs ---------------------------------------------------------------------------------------------------------------------------------------------
def _log(stream: str, call: Call) -> Answer:
    found = a_job(call, f", j.{stream}_tail AS tail, j.captured_at")
    if found["tail"] is None:
        raise Problem("content_unavailable", f"the job is {found['state']}: the end of its {stream} is stored when it has ended")
    tail = bytes(found["tail"])
    kept = tail[max(0, len(tail) - call.query["tail_bytes"]) :]
    whole = len(tail) < CAPTURED_BYTES and len(kept) == len(tail)
    headers = {"Airavata-Log-Complete": "true" if whole else "false", "Airavata-Captured-At": reading.wire(found["captured_at"]) or "", **SANDBOX}
    return Answer(kept, headers=headers, content_type="text/plain; charset=utf-8")


# ---- outputs ------------------------------------------------------------------------------------------------------------------------------------------
def _outputs(call: Call) -> Answer:
    found = outputs.of_experiment(call.tx, an_experiment(call)["id"])
    return Answer({"items": [{"name": row[0], "type": row[1], "state": row[2], "uri": row[3], "size_bytes": row[4], "sha256": row[5]} for row in found]})


def _content(call: Call) -> Answer:
    """Bytes of a staged output, whole or one range, from POSIX or S3 storage; elsewhere 409 with the URI."""
    found = or_404(next((row for row in outputs.of_experiment(call.tx, an_experiment(call)["id"]) if row[0] == call.path["name"]), None))
    name, kind, state, uri, size, sha256 = found
    if state != "STAGED":
        raise Problem("content_unavailable", f"output {name} is {state}")
    if kind == "URI_COLLECTION" or not uri.startswith("storage://"):
        raise Problem("content_unavailable", f"it is not one file of a storage of ours; it lies at {uri}")
    etag = f'"sha256:{sha256}"'
    if etag in [each.strip() for each in call.request.headers.get("if-none-match", "").split(",")]:
        return Answer(None, 304, {"ETag": etag})
    asked = call.request.headers.get("range") if call.request.headers.get("if-range", etag).strip() == etag else None
    first, last = _range(asked, size)
    headers = {"ETag": etag, "Content-Disposition": _attachment(uri), "Accept-Ranges": "bytes", "Content-Length": str(last - first + 1), **SANDBOX}
    part = (first, last) != (0, size - 1)
    answer = Answer(b"", 206 if part else 200, headers | ({"Content-Range": f"bytes {first}-{last}/{size}"} if part else {}), content_type="application/octet-stream")
    return answer if size == 0 else Answer(then=partial(_opened, *_place(call, uri), uri=uri, first=first, last=last, answer=answer))


def _range(given: str | None, size: int) -> tuple[int, int]:
    """One byte range (RFC 9110); several, or another unit, mean the whole. Raises range_not_satisfiable."""
    found = _RANGE.fullmatch(given.strip()) if given else None
    if found is None or not (found[1] or found[2]) or (found[1] and found[2] and int(found[1]) > int(found[2])):
        return 0, size - 1
    first, last = (int(found[1]), min(int(found[2] or size), size - 1)) if found[1] else (max(0, size - int(found[2])), size - 1)
    if first > last or first >= size:
        raise Problem("range_not_satisfiable", f"the content has {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    return first, last


def _attachment(uri: str) -> str:
    """A download under its file name (RFC 6266), never shown in the browser."""
    name = uri.rsplit("/", 1)[-1]
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _place(call: Call, uri: str) -> tuple[Mapping[str, Any], bytes | None]:
    """The storage resource and its key."""
    found = catalogue.get(call.tx, call.principal.gateway, catalogue.STORAGE, storage.parse(uri)[0])
    if found is None:
        raise Problem("content_unavailable", f"the storage is gone; the content lies at {uri}")
    sealed = access.sealed(call.tx, found["credential_id"]) if found["credential_id"] else None
    if sealed is None:
        return found, None
    return found, secrets.open_sealed(sealed[1], master=call.services.master_key, gateway_id=sealed[0], credential_id=found["credential_id"])


def _opened(place: Mapping[str, Any], secret: bytes | None, *, uri: str, first: int, last: int, answer: Answer) -> Answer:
    """After the transaction, in a thread: the first piece is read before anything is answered, so that what is missing is a problem and no broken download."""
    try:
        pieces = iter(storage.open_storage(place, secret).open_read(storage.parse(uri)[1], first))
        head = next(pieces, b"")
    except storage.Unavailable as fault:
        raise Problem("unavailable", f"the storage does not answer: {fault}") from None
    except storage.StorageFault as fault:
        raise Problem("content_unavailable", f"{fault} It was stored at {uri}") from None
    return Answer(_cut(head, pieces, last - first + 1), answer.status, answer.headers, content_type=answer.content_type)


def _cut(head: bytes, pieces: Iterator[bytes], left: int) -> Iterator[bytes]:
    """Exactly `left` bytes, or fewer if the file was cut short since: then the client sees a broken download, and the digest tells as well."""
    while head and left > 0:
        yield head[:left]
        left -= len(head)
        head = next(pieces, b"") if left > 0 else b""


_ONE = "/v1/experiments/{id}"
_TAIL = (integer("tail_bytes", 0, TAIL_BYTES_MAX, TAIL_BYTES),)
OPERATIONS = (
    getting(f"{_ONE}/outputs", "list_outputs", "Outputs of an experiment", _outputs, "OutputList"),
    getting(
        f"{_ONE}/outputs/{{name}}/content", "get_content", "The bytes of an output", _content, "", also=(206, 304), errors=("content_unavailable", "range_not_satisfiable", "too_many_streams"),
        content="application/octet-stream",
    ),
    getting("/v1/jobs/{id}/stdout", "get_stdout", "The end of what a job printed", partial(_log, "stdout"), "", parameters=_TAIL, errors=("content_unavailable",), content="text/plain"),
    getting("/v1/jobs/{id}/stderr", "get_stderr", "The end of what a job complained of", partial(_log, "stderr"), "", parameters=_TAIL, errors=("content_unavailable",), content="text/plain"),
)  # fmt: skip
