"""What came of an experiment: outputs with their bytes, whole or in part, and the end of what a job printed."""

import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.history import Story
from tests.support.rest import Client, Rest, a_place, fresh

pytestmark = pytest.mark.mysql
TEXT = b"     1       6      19\n"
ANY = {"Accept": "*/*"}


class Stored:
    """An experiment whose output `table` lies in a POSIX storage."""

    def __init__(self, rest: Rest, client: Client, root: Path) -> None:
        self.rest, self.client, self.root = rest, client, root
        self.place = a_place(client, str(root))
        body = {"name": "x", "application_interface_id": self.place["interface"], "inputs": {"text": "data:,x"}, "output_storage_id": self.place["storage"], "launch": True}
        self.experiment = client.made("/v1/experiments", body)
        self.path = f"/v1/experiments/{self.experiment['id']}/outputs"

    def put(self, content: bytes, name: str = "hits.tbl", *, output: str = "table", state: str = "STAGED", **more: Any) -> str:
        (self.root / "run").mkdir(exist_ok=True)
        (self.root / "run" / name).write_bytes(content)
        row = {"state": state, "uri": f"storage://{self.place['storage']}/run/{name}", "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), **more}
        row = row if state == "STAGED" else dict.fromkeys(row) | {"state": state}
        self.rest.write("UPDATE outputs SET state = %s, uri = %s, size_bytes = %s, sha256 = %s WHERE experiment_id = %s AND name = %s", *row.values(), self.experiment["id"], output)
        return hashlib.sha256(content).hexdigest()

    def content(self, output: str = "table", *, method: str = "GET", **headers: str) -> Any:
        return self.client.send_json(method, f"{self.path}/{output}/content", headers={**ANY, **headers})


@pytest.fixture
def stored(rest: Rest, admin: Client, tmp_path: Path) -> Stored:
    return Stored(rest, admin, tmp_path)


def test_outputs_are_told_in_their_order_with_where_they_lie(stored: Stored) -> None:
    digest = stored.put(TEXT)
    assert stored.client.read(stored.path)["items"] == [
        {"name": "count", "type": "STDOUT", "state": "EXPECTED", "uri": None, "size_bytes": None, "sha256": None},
        {"name": "table", "type": "URI", "state": "STAGED", "uri": f"storage://{stored.place['storage']}/run/hits.tbl", "size_bytes": 23, "sha256": digest},
    ]  # fmt: skip
    assert stored.client.read(f"/v1/experiments/{stored.experiment['id']}")["outputs"][1]["sha256"] == digest


def test_content_comes_as_an_attachment_that_no_browser_runs(stored: Stored) -> None:
    digest = stored.put(TEXT)
    answer = stored.content()
    assert (answer.status_code, answer.content) == (200, TEXT)
    assert (answer.headers["etag"], answer.headers["content-length"], answer.headers["accept-ranges"]) == (f'"sha256:{digest}"', "23", "bytes")
    assert answer.headers["content-disposition"] == "attachment; filename=\"hits.tbl\"; filename*=UTF-8''hits.tbl"
    assert (answer.headers["content-security-policy"], answer.headers["x-content-type-options"]) == ("sandbox; default-src 'none'", "nosniff")
    assert stored.content(**{"If-None-Match": answer.headers["etag"]}).status_code == 304
    head = stored.content(method="HEAD")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "23")
    stored.put(b"", "empty")
    assert (stored.content().status_code, stored.content().content, stored.content().headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize(
    ("asked", "status", "content", "told"),
    [
        ("bytes=0-4", 206, TEXT[:5], "bytes 0-4/23"), ("bytes=20-", 206, TEXT[20:], "bytes 20-22/23"), ("bytes=-3", 206, TEXT[-3:], "bytes 20-22/23"), ("bytes=5-999", 206, TEXT[5:], "bytes 5-22/23"),
        ("bytes=0-", 200, TEXT, None), ("bytes=-99", 200, TEXT, None), ("bytes=0-1,3-4", 200, TEXT, None), ("lines=1-2", 200, TEXT, None), ("bytes=9-3", 200, TEXT, None),
    ],
)  # fmt: skip
def test_a_range_brings_that_part(stored: Stored, asked: str, status: int, content: bytes, told: str | None) -> None:
    stored.put(TEXT)
    answer = stored.content(Range=asked)
    assert (answer.status_code, answer.content, answer.headers.get("content-range")) == (status, content, told)


def test_a_range_beyond_the_end_or_of_another_version_brings_no_part(stored: Stored) -> None:
    digest = stored.put(TEXT)
    beyond = stored.content(Range="bytes=23-")
    assert (beyond.status_code, beyond.json()["code"], beyond.headers["content-range"]) == (416, "range_not_satisfiable", "bytes */23")
    assert stored.content(Range="bytes=0-4", **{"If-Range": f'"sha256:{digest}"'}).status_code == 206
    assert stored.content(Range="bytes=0-4", **{"If-Range": '"sha256:old"'}).content == TEXT


def test_what_cannot_be_served_says_where_it_lies(stored: Stored) -> None:
    def refusal(output: str = "table") -> tuple[int, str, str]:
        answer = stored.content(output)
        return answer.status_code, answer.json()["code"], answer.json()["detail"]

    assert refusal()[:2] == (409, "content_unavailable")
    stored.put(TEXT, state="MISSING")
    assert refusal() == (409, "content_unavailable", "output table is MISSING")
    stored.put(TEXT, uri="https://elsewhere/x")
    assert "https://elsewhere/x" in refusal()[2]
    stored.put(TEXT)
    (stored.root / "run" / "hits.tbl").unlink()
    assert refusal()[:2] == (409, "content_unavailable")
    assert f"storage://{stored.place['storage']}/run/hits.tbl" in refusal()[2]
    assert stored.content("nothing").status_code == 404


def test_a_storage_that_is_away_may_be_asked_again(rest: Rest, stored: Stored) -> None:
    storage = stored.client.made("/v1/storage-resources", {"name": fresh("s3"), "kind": "S3", "endpoint": "http://127.0.0.1:9", "bucket": "abc"})["id"]
    stored.put(TEXT, uri=f"storage://{storage}/run/hits.tbl")
    answer = stored.content()
    assert (answer.status_code, answer.json()["code"], answer.json()["retriable"]) == (503, "unavailable", True)


@pytest.mark.parametrize("name", ['a"b.txt', "ä\u202e.txt", "a;b.txt"])
def test_a_file_name_stays_a_file_name(stored: Stored, name: str) -> None:
    stored.put(TEXT, name)
    answer = stored.content()
    assert answer.content == TEXT
    plain = answer.headers["content-disposition"].split('"')[1]
    assert plain.isascii()
    assert not set(plain) & set('";\r\n')


def test_a_large_output_streams_and_costs_no_memory(stored: Stored) -> None:
    """64 MiB read slowly: while it runs, the server answers others and holds at most some pieces."""
    piece = bytes(range(256)) * 4096
    whole = hashlib.sha256()
    target = stored.root / "run"
    target.mkdir()
    with (target / "big").open("wb") as file:
        for _ in range(64):
            file.write(piece)
            whole.update(piece)
    stored.rest.write("UPDATE outputs SET state = 'STAGED', uri = %s, size_bytes = %s, sha256 = %s WHERE experiment_id = %s AND name = 'table'", f"storage://{stored.place['storage']}/run/big", 64 << 20, whole.hexdigest(), stored.experiment["id"])
    before = resident_kib()
    got = hashlib.sha256()
    with stored.client.stream("GET", f"{stored.path}/table/content", headers=ANY) as answer:
        for index, part in enumerate(answer.iter_bytes(1 << 20)):
            got.update(part)
            if index == 1:
                assert stored.client.read("/v1/me")["user"] == "ann"
    assert got.hexdigest() == whole.hexdigest()
    assert resident_kib() - before < 32_000


def resident_kib() -> int:
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])


def test_a_client_that_goes_away_ends_its_download(stored: Stored) -> None:
    stored.put(b"x" * (32 << 20))
    with stored.client.stream("GET", f"{stored.path}/table/content", headers=ANY) as answer:
        next(answer.iter_bytes(1024))
    for _ in range(500):
        if not open_files(stored.root):
            break
        threading.Event().wait(0.02)
    assert open_files(stored.root) == []


def open_files(root: Path) -> list[str]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(each.readlink()))
        except OSError:
            continue
    return [each for each in found if each.startswith(str(root / "run"))]


def test_a_file_cut_short_since_breaks_off(stored: Stored) -> None:
    import httpx2

    stored.put(TEXT)
    (stored.root / "run" / "hits.tbl").write_bytes(TEXT[:5])
    with pytest.raises(httpx2.RemoteProtocolError):
        stored.content()


# ---- logs ---------------------------------------------------------------------------------------------------------------------------------------------
def test_the_end_of_a_log_is_kept_with_the_job(rest: Rest, stored: Stored) -> None:
    story = Story(rest, stored.experiment)
    task = story.task("job-submission", "EXECUTING", kind="JOB_SUBMISSION", attempt=1)
    job = story.job(task, story.attempt(task, 1, "RUNNING"))
    early = stored.client.send_json("GET", f"/v1/jobs/{job}/stdout", headers=ANY)
    assert (early.status_code, early.json()["code"]) == (409, "content_unavailable")
    rest.write("UPDATE jobs SET state = 'COMPLETED', finished_at = %s, captured_at = %s, stdout_tail = %s, stderr_tail = %s WHERE id = %s", story.at, story.at, "zählt\n<b>".encode(), b"e" * 4096, job)
    answer = stored.client.send_json("GET", f"/v1/jobs/{job}/stdout", headers={"Accept": "text/plain"})
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "zählt\n<b>", "text/plain; charset=utf-8")
    assert (answer.headers["airavata-log-complete"], answer.headers["airavata-captured-at"]) == ("true", story.at.isoformat(timespec="microseconds") + "Z")
    part = stored.client.send_json("GET", f"/v1/jobs/{job}/stdout", headers=ANY, tail_bytes=3)
    assert (part.content, part.headers["airavata-log-complete"]) == (b"<b>", "false")
    cut = stored.client.send_json("GET", f"/v1/jobs/{job}/stderr", headers=ANY)
    assert (len(cut.content), cut.headers["airavata-log-complete"]) == (4096, "false")
    assert stored.client.send_json("GET", f"/v1/jobs/{job}/stderr", headers=ANY, tail_bytes=0).content == b""
    assert stored.client.send_json("GET", f"/v1/jobs/{job}/stdout", headers=ANY, tail_bytes=1 << 21).json()["code"] == "invalid_parameter"
    assert stored.client.send_json("GET", f"/v1/jobs/{job}/stdout", headers={"Accept": "text/html"}).status_code == 406
