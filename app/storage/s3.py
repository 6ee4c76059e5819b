"""S3 by boto3 (the optional extra `s3`). One multipart upload per attempt and epoch: an object becomes visible when it is completed, and is aborted when it is not."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from app.storage import CHUNK_BYTES, AccessDenied, Full, NotFound, Unavailable, names

PART_BYTES, PARTS_OF_A_SIZE = 8 << 20, 2000  # An upload may have 10,000 parts: they double in size every 2,000, so that half a terabyte fits.


class S3Storage:
    """`secret`: `<access key id>:<secret access key>`. Path-style addresses, so that any endpoint will do."""

    def __init__(self, endpoint: str, bucket: str, prefix: str, secret: bytes | None) -> None:
        import boto3
        from botocore.config import Config

        key, _, value = (secret or b":").decode().partition(":")
        config = Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 3}, s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
        self.client: Any = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=value, region_name="us-east-1", config=config)
        self.bucket, self.prefix = bucket, prefix.strip("/")

    def _key(self, path: str) -> str:
        return "/".join([*filter(None, [self.prefix]), *names(path)])

    def size(self, path: str) -> int:
        with _translated(path):
            return int(self.client.head_object(Bucket=self.bucket, Key=self._key(path))["ContentLength"])

    def open_read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        with _translated(path):
            if offset and offset >= self.size(path):
                return
            given = {"Range": f"bytes={offset}-"} if offset else {}
            body = self.client.get_object(Bucket=self.bucket, Key=self._key(path), **given)["Body"]
            try:
                while piece := body.read(CHUNK_BYTES):
                    yield piece
            finally:
                body.close()

    def write(self, path: str, pieces: Iterable[bytes], *, part: str) -> int:
        """`part` is not needed: an upload has an id of its own."""
        with _translated(path):
            parts: list[dict[str, Any]] = []
            waiting, total, upload = io.BytesIO(), 0, ""
            try:
                for piece in pieces:
                    waiting.write(piece)
                    total += len(piece)
                    if waiting.tell() >= PART_BYTES << len(parts) // PARTS_OF_A_SIZE:
                        upload = upload or self.client.create_multipart_upload(Bucket=self.bucket, Key=self._key(path))["UploadId"]
                        parts.append(self._send(path, upload, len(parts) + 1, waiting))
                        waiting = io.BytesIO()
                if not upload:
                    self.client.put_object(Bucket=self.bucket, Key=self._key(path), Body=waiting.getvalue())
                    return total
                if waiting.tell():
                    parts.append(self._send(path, upload, len(parts) + 1, waiting))
                self.client.complete_multipart_upload(Bucket=self.bucket, Key=self._key(path), UploadId=upload, MultipartUpload={"Parts": parts})
            except BaseException:
                if upload:
                    self.client.abort_multipart_upload(Bucket=self.bucket, Key=self._key(path), UploadId=upload)
                raise
            return total

    def _send(self, path: str, upload: str, number: int, data: io.BytesIO) -> dict[str, Any]:
        answer = self.client.upload_part(Bucket=self.bucket, Key=self._key(path), UploadId=upload, PartNumber=number, Body=data.getvalue())
        return {"PartNumber": number, "ETag": answer["ETag"]}


@contextmanager
def _translated(path: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as fault:
        code, status = fault.response["Error"]["Code"], fault.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        if code in {"NoSuchKey", "404", "NotFound"} or status == 404:
            raise NotFound(f"There is no object {path} in the storage.") from fault
        if status in {401, 403}:
            raise AccessDenied("The storage refuses the credential.") from fault
        if code in {"QuotaExceeded", "InsufficientStorage"} or status == 507:
            raise Full("The storage has no room left.") from fault
        raise Unavailable(f"The storage answered {code or status}.") from fault
    except BotoCoreError as fault:
        raise Unavailable(f"The storage does not answer: {type(fault).__name__}.") from fault
