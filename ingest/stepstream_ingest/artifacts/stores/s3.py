"""The border to aiobotocore: S3, and everything that speaks its protocol.

Endpoint, region and credentials are botocore's own settings (AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_ACCESS_KEY_ID, a
role ...). Clients that reach the store under another address than the server are told so by
STEPSTREAM_ARTIFACT_PUBLIC_ENDPOINT.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from stepstream_ingest.artifacts.stores.headers import attachment, safe_type
from stepstream_ingest.artifacts.stores.root import ArtifactRoot
from stepstream_ingest.artifacts.stores.store import (
    SIGNED_FOR_S,
    Listed,
    NotDeleted,
    ObjectGone,
    Part,
    Seen,
    Signed,
    StoreAway,
    StoreRefused,
    away,
)

PUBLIC_ENDPOINT: Final = "STEPSTREAM_ARTIFACT_PUBLIC_ENDPOINT"
READ_BYTES: Final = 2**20
DELETE_AT_A_TIME: Final = 1000
MISSING: Final = frozenset({"404", "NoSuchKey", "NoSuchUpload", "NotFound"})
REFUSED: Final = frozenset({"BadDigest", "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "InvalidRequest"})


class S3Store:
    """Law of every store."""

    checksum: Final = "sha256"
    part_checksum: Final = "crc32"
    """It guards the transfer; SHA-256 twice over costs client and store more than the network does."""

    def __init__(self, root: ArtifactRoot, environ: Mapping[str, str]) -> None:
        self._root = root
        self._public_endpoint = environ.get(PUBLIC_ENDPOINT)
        self._region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        self._stack = AsyncExitStack()
        self._opened: Any = None
        self._public: Any = None

    async def sign_put(self, key: str, *, size: int, checksum: str) -> Signed:
        """Size and SHA-256 are under the signature, and the store checks the body against both."""
        said = {"ContentLength": size, "ChecksumSHA256": checksum}
        return await self._signed("put_object", key, said, {"x-amz-checksum-sha256": checksum})

    async def begin_parts(self, key: str, *, checked: bool) -> str:
        """Its parts carry CRC32, or none of them does: the store wants to know."""
        said = {"ChecksumAlgorithm": "CRC32"} if checked else {}
        answer = await self._call("create_multipart_upload", Key=self._root.key(key), **said)
        return str(answer["UploadId"])

    async def sign_part(self, key: str, token: str, *, number: int, size: int | None, checksum: str | None) -> Signed:
        """One part; without a checksum any body is taken, as MLflow's client needs it."""
        said: dict[str, Any] = {"UploadId": token, "PartNumber": number}
        headers = {}
        if size is not None:
            said["ContentLength"] = size
        if checksum is not None:
            said["ChecksumCRC32"] = checksum
            headers["x-amz-checksum-crc32"] = checksum
        return await self._signed("upload_part", key, said, headers)

    async def parts(self, key: str, token: str, part_bytes: int) -> Sequence[Part] | None:
        """As the store lists them, 1000 at a time."""
        found: list[Part] = []
        marker = 0
        while True:
            try:
                answer = await self._call(
                    "list_parts", Key=self._root.key(key), UploadId=token, PartNumberMarker=marker
                )
            except _Missing:
                return None
            found += [
                Part(number=p["PartNumber"], size=p["Size"], token=p["ETag"], checksum=p.get("ChecksumCRC32", ""))
                for p in answer.get("Parts", ())
            ]
            if not answer.get("IsTruncated"):
                return found
            marker = int(answer["NextPartNumberMarker"])

    async def complete_parts(self, key: str, token: str, parts: Sequence[Part], sha256: bytes | None) -> bytes | None:
        """The store has checked each part; nobody has read the whole.

        It may have completed the upload by this very call, which the library sends again when no answer comes.
        """
        said = [
            {"PartNumber": part.number, "ETag": part.token}
            | ({"ChecksumCRC32": part.checksum} if part.checksum else {})
            for part in parts
        ]
        with suppress(_Missing):
            await self._call(
                "complete_multipart_upload",
                Key=self._root.key(key),
                UploadId=token,
                MultipartUpload={"Parts": said},
            )
        return None

    async def abort_parts(self, key: str, token: str) -> None:
        """Parts that have arrived are removed."""
        try:
            await self._call("abort_multipart_upload", Key=self._root.key(key), UploadId=token)
        except _Missing:
            return
        except _Denied as error:
            raise NotDeleted({key: str(error)}) from error

    async def seen(self, key: str) -> Seen | None:
        """By HEAD."""
        try:
            return Seen(size=int((await self._call("head_object", Key=self._root.key(key)))["ContentLength"]))
        except _Missing:
            return None

    async def sign_get(self, key: str, *, filename: str, content_type: str) -> Signed:
        """The store answers with a type and a disposition that are under the signature."""
        said = {"ResponseContentDisposition": attachment(filename), "ResponseContentType": safe_type(content_type)}
        return await self._signed("get_object", key, said, {})

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """By one ranged GET."""
        last = "" if length is None else str(start + length - 1)
        try:
            answer = await self._call("get_object", Key=self._root.key(key), Range=f"bytes={start}-{last}")
        except _Missing as error:
            raise ObjectGone("the object is gone from the store") from error
        async with answer["Body"] as body:
            with away(OSError, TimeoutError, BotoCoreError):
                while piece := await body.read(READ_BYTES):
                    yield piece

    async def write(self, key: str, body: bytes) -> None:
        """One PUT."""
        await self._call("put_object", Key=self._root.key(key), Body=body)

    async def write_part(self, key: str, token: str, number: int, body: bytes) -> None:
        """One part."""
        await self._call("upload_part", Key=self._root.key(key), UploadId=token, PartNumber=number, Body=body)

    async def delete(self, keys: Sequence[str]) -> None:
        """Many at once; what is refused of them is said in an answer that is no error."""
        left: dict[str, str] = {}
        for start in range(0, len(keys), DELETE_AT_A_TIME):
            some = [{"Key": self._root.key(key)} for key in keys[start : start + DELETE_AT_A_TIME]]
            answer = await self._call("delete_objects", Delete={"Objects": some, "Quiet": True})
            for one in answer.get("Errors", ()):
                if str(one.get("Code")) not in MISSING:
                    left[self._root.own(one["Key"])] = f"{one.get('Code')}: {one.get('Message')}"
        if left:
            raise NotDeleted(left)

    async def scan(self, after: str) -> AsyncIterator[Listed]:
        """Objects in pages, then uploads in parts."""
        begin = {"Prefix": self._root.key("objects/"), "StartAfter": self._root.key(after)}
        more: dict[str, Any] = {}
        while True:
            page = await self._call("list_objects_v2", **begin, **more)
            for found in page.get("Contents", ()):
                key = self._root.own(found["Key"])
                yield Listed(key=key, size=found["Size"], modified_at=found["LastModified"])
            if not page.get("IsTruncated"):
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
        async for listed in self._never_completed():
            yield listed

    async def close(self) -> None:
        """Close the connection pool."""
        await self._stack.aclose()

    async def _never_completed(self) -> AsyncIterator[Listed]:
        more: dict[str, Any] = {}
        while True:
            page = await self._call("list_multipart_uploads", Prefix=self._root.key("objects/"), **more)
            for found in page.get("Uploads", ()):
                key, token = self._root.own(found["Key"]), found["UploadId"]
                yield Listed(key=key, size=0, modified_at=found["Initiated"], parts_token=token)
            if not page.get("IsTruncated"):
                return
            more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    async def _signed(self, operation: str, key: str, said: dict[str, Any], headers: dict[str, str]) -> Signed:
        await self._client()
        url = await self._public.generate_presigned_url(
            operation, Params={"Bucket": self._root.bucket, "Key": self._root.key(key), **said}, ExpiresIn=SIGNED_FOR_S
        )
        return Signed(method="GET" if operation == "get_object" else "PUT", url=url, headers=headers)

    async def _call(self, operation: str, **said: Any) -> Any:
        client = await self._client()
        with away(BotoCoreError, OSError, TimeoutError):
            try:
                return await getattr(client, operation)(Bucket=self._root.bucket, **said)
            except ClientError as error:
                raise _translated(error) from error

    async def _client(self) -> Any:
        if self._opened is None:
            self._opened = await self._stack.enter_async_context(self._create(None))
            self._public = self._opened
            if self._public_endpoint:
                self._public = await self._stack.enter_async_context(self._create(self._public_endpoint))
        return self._opened

    def _create(self, endpoint: str | None) -> Any:
        config = AioConfig(
            signature_version="s3v4",
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=32,
            retries={"mode": "standard", "max_attempts": 3},
            # Checksums are asked for where they are wanted; others that speak S3 stumble over unasked ones.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return get_session().create_client("s3", region_name=self._region, endpoint_url=endpoint, config=config)


class _Missing(Exception):
    """What was asked for is not there."""


class _Denied(StoreAway):
    """The server's own account may not do this one thing."""


def _translated(error: ClientError) -> Exception:
    said = error.response.get("Error", {})
    code, message = str(said.get("Code")), str(said.get("Message"))
    if code in MISSING:
        return _Missing(code)
    if code in REFUSED:
        return StoreRefused(f"the store refused what was uploaded: {code}: {message}")
    if code == "AccessDenied":
        return _Denied(f"the object store is away: {code}: {message}")
    # Also a wrong key or bucket: the operator mends it, and what waits is not lost.
    return OSError(f"{code}: {message}")
