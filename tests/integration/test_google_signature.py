"""Google's emulator takes any signature, so the one in our URLs is checked here against the account's public key.

The string to sign is built anew from https://cloud.google.com/storage/docs/authentication/signatures.
"""

import hashlib
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from stepstream_ingest.artifacts.stores.gcs import GcsStore
from stepstream_ingest.artifacts.stores.root import parse
from tests.stores import BUCKET

KEY = "objects/ab/" + "ab" * 16


def verify(signed, public, headers) -> None:
    url = urlsplit(signed.url)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    signature = bytes.fromhex(query.pop("X-Goog-Signature"))
    said = {name.lower(): value for name, value in headers.items()} | {"host": url.netloc}
    names = query["X-Goog-SignedHeaders"].split(";")
    request = "\n".join(
        [
            signed.method,
            url.path,
            "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items())),
            *(f"{name}:{said[name]}" for name in names),
            "",
            ";".join(names),
            "UNSIGNED-PAYLOAD",
        ]
    )
    scope = query["X-Goog-Credential"].partition("/")[2]
    digest = hashlib.sha256(request.encode()).hexdigest()
    to_sign = "\n".join(["GOOG4-RSA-SHA256", query["X-Goog-Date"], scope, digest])
    public.verify(signature, to_sign.encode(), padding.PKCS1v15(), hashes.SHA256())


async def test_size_checksum_and_key_are_under_the_signature(google_environment, monkeypatch):
    for name, value in google_environment.items():
        monkeypatch.setenv(name, value)
    account = Path(google_environment["GOOGLE_APPLICATION_CREDENTIALS"])
    public = serialization.load_pem_public_key(account.with_name("public.pem").read_bytes())
    store = GcsStore(parse(f"gs://{BUCKET}/p"), google_environment)
    put = await store.sign_put(KEY, size=7, checksum="bWQ1")
    verify(put, public, put.headers)
    for changed in ({"Content-MD5": "other"}, {"x-goog-content-length-range": "8,8"}):
        with pytest.raises(InvalidSignature):
            verify(put, public, dict(put.headers) | changed)
    verify(await store.sign_get(KEY, filename="a b.html", content_type="text/html"), public, {})
    verify(part := await store.sign_part(KEY, "compose", number=3, size=9, checksum="eA=="), public, part.headers)
    await store.close()
