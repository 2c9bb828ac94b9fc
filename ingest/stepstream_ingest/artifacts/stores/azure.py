"""The border to Microsoft's library: Azure Blob Storage, by SAS URLs.

The account is named by AZURE_STORAGE_CONNECTION_STRING. A SAS binds blob, right and time, and neither size nor hash:
what arrived is measured when an upload is completed. The right to put a block is the right to overwrite the blob, so
blocks meet in a blob of their own (`parts/ab12...`), of which the server makes the object: no SAS can overwrite that.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobSasPermissions, generate_blob_sas
from azure.storage.blob.aio import BlobServiceClient

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

CONNECTION_STRING: Final = "AZURE_STORAGE_CONNECTION_STRING"
CLOCK_SKEW: Final = timedelta(minutes=5)
"""A SAS begins so long ago: clocks differ."""
COPY_POLL_S: Final = 0.5
"""Within an account a copy is mostly done at once."""


class AzureStore:
    """Law of every store. An upload in parts needs no name of its own: blocks belong to their blob."""

    checksum: Final = "md5"
    part_checksum: Final = "md5"

    def __init__(self, root: ArtifactRoot, environ: Mapping[str, str]) -> None:
        self._root = root
        self._service = BlobServiceClient.from_connection_string(environ[CONNECTION_STRING], retry_total=2)
        self._container = self._service.get_container_client(root.bucket)

    async def sign_put(self, key: str, *, size: int, checksum: str) -> Signed:
        """Put Blob, of a new one only; the store checks Content-MD5 where it is sent, and tells the MD5 in any case."""
        headers = {"x-ms-blob-type": "BlockBlob", "Content-MD5": checksum, "Content-Type": "application/octet-stream"}
        return Signed(method="PUT", url=self._sas(key, BlobSasPermissions(create=True)), headers=headers)

    async def begin_parts(self, key: str, *, checked: bool) -> str:
        """Blocks can be put at once."""
        return "blocks"

    async def sign_part(self, key: str, token: str, *, number: int, size: int | None, checksum: str | None) -> Signed:
        """Put Block."""
        url = self._sas(_staging(key), BlobSasPermissions(write=True)) + f"&comp=block&blockid={_block_id(number)}"
        return Signed(method="PUT", url=url, headers={"Content-MD5": checksum} if checksum else {})

    async def parts(self, key: str, token: str, part_bytes: int) -> Sequence[Part] | None:
        """Blocks; also those that a server has committed which was killed before it made the object."""
        try:
            with away(_Away):
                committed, others = await self._translated(self._blob(_staging(key)).get_block_list("all"))
        except ResourceNotFoundError:
            return []
        found = {block.id: block.size for block in (*committed, *others)}
        parts = [Part(number=int(name), size=size, token=name) for name, size in found.items()]
        return sorted(parts, key=lambda part: part.number)

    async def complete_parts(self, key: str, token: str, parts: Sequence[Part], sha256: bytes | None) -> bytes | None:
        """Put Block List, and a copy within the account."""
        blocks = [BlobBlock(block_id=part.token) for part in parts]
        with away(_Away):
            staged = await self._translated(self._blob(_staging(key)).commit_block_list(blocks))
        await self._copy(_staging(key), key, staged["etag"])
        await self.delete([_staging(key)])
        return None

    async def abort_parts(self, key: str, token: str) -> None:
        """Azure removes uncommitted blocks after a week by itself; a blob of no blocks removes them now."""
        with away(_Away):
            await self._translated(self._blob(_staging(key)).commit_block_list([]))
        await self.delete([_staging(key)])

    async def seen(self, key: str) -> Seen | None:
        """By HEAD; what is still being copied is not there. What was put in blocks has no MD5."""
        try:
            with away(_Away):
                found = await self._translated(self._blob(key).get_blob_properties())
        except ResourceNotFoundError:
            return None
        md5 = found.content_settings.content_md5
        is_whole = found.copy.status in (None, "success")
        return Seen(size=int(found.size), md5=base64.b64encode(md5 or b"").decode()) if is_whole else None

    async def sign_get(self, key: str, *, filename: str, content_type: str) -> Signed:
        """The store answers with a type and a disposition that are under the signature."""
        said = {"content_disposition": attachment(filename), "content_type": safe_type(content_type)}
        return Signed(method="GET", url=self._sas(key, BlobSasPermissions(read=True), **said))

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """By ranges."""
        try:
            with away(_Away):
                stream = await self._translated(self._blob(key).download_blob(offset=start, length=length))
                async for piece in stream.chunks():
                    yield piece
        except ResourceNotFoundError as error:
            raise ObjectGone("the object is gone from the store") from error

    async def write(self, key: str, body: bytes) -> None:
        """Put Blob."""
        with away(_Away):
            await self._translated(self._blob(key).upload_blob(body, overwrite=True))

    async def write_part(self, key: str, token: str, number: int, body: bytes) -> None:
        """Put Block."""
        with away(_Away):
            await self._translated(self._blob(_staging(key)).stage_block(f"{number:08d}", body))

    async def delete(self, keys: Sequence[str]) -> None:
        """One by one: a batch fails as a whole where one is missing."""
        left: dict[str, str] = {}
        for key in keys:
            try:
                with away(_Away):
                    await self._translated(self._blob(key).delete_blob())
            except ResourceNotFoundError:
                continue
            except StoreRefused as error:
                # Such as one that a policy keeps.
                left[key] = str(error)
        if left:
            raise NotDeleted(left)

    async def scan(self, after: str) -> AsyncIterator[Listed]:
        """In the order of keys; then blobs of blocks, also of such that are not committed."""
        with away(AzureError):
            async for blob in self._container.list_blobs(self._root.key("objects/")):
                key = self._root.own(blob.name)
                if key > after:
                    yield Listed(key=key, size=blob.size or 0, modified_at=blob.last_modified)
            async for blob in self._container.list_blobs(self._root.key("parts/"), include=["uncommittedblobs"]):
                name = blob.name.rpartition("/")[2]
                # Azure does not say when the last block came: such a blob is always young, and goes by itself.
                modified = blob.last_modified or datetime.now(UTC)
                of = f"objects/{name[:2]}/{name}"
                yield Listed(key=of, size=blob.size or 0, modified_at=modified, parts_token="blocks")

    async def close(self) -> None:
        """Close the connection pool."""
        await self._service.close()

    async def _copy(self, source: str, target: str, etag: str) -> None:
        url = self._sas(source, BlobSasPermissions(read=True))
        # An object never changes: where it is there already, it stays.
        only = {"match_condition": MatchConditions.IfMissing}
        same = {"source_etag": etag, "source_match_condition": MatchConditions.IfNotModified}
        blob = self._blob(target)
        with away(_Away):
            with suppress(_Exists):
                await self._translated(blob.start_copy_from_url(url, **only, **same))
            status = await self._copied(blob)
        if status not in (None, "success"):
            await self.delete([target])
            raise StoreAway(f"the object store has not copied what was sent: {status}")

    async def _copied(self, blob: Any) -> Any:
        while True:
            status = (await self._translated(blob.get_blob_properties())).copy.status
            if status != "pending":
                return status
            await asyncio.sleep(COPY_POLL_S)

    def _blob(self, key: str) -> Any:
        return self._container.get_blob_client(self._root.key(key))

    def _sas(self, key: str, permission: Any, **said: Any) -> str:
        blob = self._blob(key)
        now = datetime.now(UTC)
        sas = generate_blob_sas(
            account_name=blob.account_name,
            container_name=blob.container_name,
            blob_name=blob.blob_name,
            account_key=self._service.credential.account_key,
            permission=permission,
            start=now - CLOCK_SKEW,
            expiry=now + timedelta(seconds=SIGNED_FOR_S),
            **said,
        )
        return f"{blob.url}?{sas}"

    async def _translated(self, call: Any) -> Any:
        try:
            return await call
        except ResourceNotFoundError:
            raise
        except ResourceExistsError as error:
            raise _Exists(f"the store has it already: {error.message}") from error
        except HttpResponseError as error:
            if error.status_code in (400, 409):
                raise StoreRefused(f"the store refused what was uploaded: {error.message}") from error
            raise _Away(str(error)) from error
        except (AzureError, OSError, TimeoutError) as error:
            raise _Away(str(error)) from error


class _Away(Exception):
    """The store cannot be reached."""


class _Exists(StoreRefused):
    """There is such a blob."""


def _staging(key: str) -> str:
    return f"parts/{key.rpartition('/')[2]}"


def _block_id(number: int) -> str:
    # All ids of a blob must have one length.
    return base64.b64encode(f"{number:08d}".encode()).decode().replace("=", "%3D")
