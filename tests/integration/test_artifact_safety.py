"""What must not be done with artifacts, and what a browser gets to see of hostile ones."""

import asyncio
import hashlib
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepstream_schema import limits, paths
from tests.integration.app import RUN, fetch, get, running

TREE = paths.run_artifacts(RUN)
OTHER = "f" * 32


async def begin(client, *files, status=200, run=RUN):
    async with client.post(paths.run_artifacts(run) + "/uploads", json={"files": list(files)}) as response:
        assert response.status == status, await response.text()
        return (await response.json()).get("files")


def said(path, body, **more):
    sha256 = hashlib.sha256(body).hexdigest()
    return {"path": path, "size": len(body), "sha256": sha256, "logged_at_ms": 5, "content_type": "text/plain"} | more


async def put(client, path, body, **more):
    (begun,) = await begin(client, said(path, body, **more))
    if begun["state"] == "put":
        assert (await client.put(begun["url"], data=body)).status == 200
        await client.post(paths.UPLOADS + "/complete", json={"uploads": [{"upload_id": begun["upload_id"]}]})


@pytest.mark.parametrize(
    "path", ["../a", "/etc/passwd", "a/../../b", "a\0b", "a\nb", "x" * 300, "", "a//b", "a\\b", 7, None]
)
async def test_a_path_that_cannot_be_used_is_refused_and_its_neighbour_is_not(database_url, path):
    async with running(database_url) as client:
        bad, good = await begin(client, said(path, b"x"), said("good", b"x"))
        assert (bad["state"], bad["code"]) == ("refused", "INVALID_PARAMETER_VALUE")
        assert good["state"] == "put"
        response = await client.get(TREE + "/content", params={"path": str(path)})
        assert response.status == 400 if path != 7 and path is not None else 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": -1},
        {"size": 2**60},
        {"size": "7"},
        {"size": None},
        {"sha256": "zz"},
        {"sha256": "A" * 64},
        {"md5": "x"},
        {"logged_at_ms": None},
        {"logged_at_ms": -1},
    ],
)
async def test_what_is_announced_wrongly_is_refused(database_url, wrong):
    async with running(database_url) as client:
        (answer,) = await begin(client, said("a", b"x", **wrong))
        assert answer["state"] == "refused"
        assert await fetch(database_url, "SELECT FROM uploads") == []


async def test_a_type_that_could_break_a_header_becomes_plain_bytes(database_url):
    async with running(database_url) as client:
        await put(client, "a", b"x", content_type="text/html\r\nSet-Cookie: a=b")
        (file,) = (await get(client, TREE))["files"]
        assert file["content_type"] == "application/octet-stream"


async def test_nothing_is_added_to_a_deleted_run(database_url):
    async with running(database_url) as client:
        await put(client, "a", b"x")
        await client.delete(paths.run(RUN))
        await begin(client, said("b", b"y"), status=400)
    assert await fetch(database_url, "SELECT FROM uploads WHERE path = 'b'") == []
    assert [row["path"] for row in await fetch(database_url, "SELECT path FROM artifacts")] == ["a"]


async def test_a_url_for_one_object_opens_no_other(database_url):
    async with running(database_url) as client:
        await put(client, "a", b"secret of a")
        (begun,) = await begin(client, said("b", b"y"), run=OTHER)
        (file,) = (await (await client.post(TREE + "/urls", json={"paths": ["a"]})).json())["files"]
        key, _, query = file["url"].partition("?")
        assert (await client.get(file["url"])).status == 200
        assert (await client.get(begun["url"])).status == 403
        assert (await client.put(file["url"], data=b"z")).status == 403
        assert (await client.get(f"{key}x?{query}")).status == 403
        for bad in ("..%2f..%2fetc%2fpasswd", "objects/../../x"):
            assert (await client.get(f"{paths.STORE}/{bad}?{query}")).status in (403, 404)
        assert (await client.get(key)).status == 403


async def test_the_embedded_store_needs_no_token_and_everything_else_does(database_url):
    async with running(database_url, token="t0ken") as client:
        bearer = {"Authorization": "Bearer t0ken"}
        async with client.post(TREE + "/uploads", json={"files": [said("a", b"x")]}) as response:
            assert response.status == 401
        async with client.post(TREE + "/uploads", json={"files": [said("a", b"x")]}, headers=bearer) as response:
            (begun,) = (await response.json())["files"]
        assert (await client.put(begun["url"], data=b"x")).status == 200
        assert (await client.get(TREE)).status == 401


async def test_a_body_that_breaks_off_leaves_nothing(database_url, tmp_path):
    async with running(database_url, artifact_root=f"file://{tmp_path}") as client:
        (begun,) = await begin(client, said("a", b"x" * 1000))

        async def half():
            yield b"x" * 500
            raise ConnectionError("gone")

        with pytest.raises(Exception):  # noqa: B017 - whichever way the client dies
            await client.put(begun["url"], data=half(), headers={"Content-Length": "1000"})
        for _ in range(1200):
            if not list((tmp_path / "incoming").iterdir()):
                break
            await asyncio.sleep(0.05)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_the_wrong_sum_of_parts_is_refused_and_removed(database_url, tmp_path):
    async with running(database_url, artifact_root=f"file://{tmp_path}") as client:
        body = b"x" * 100
        (begun,) = await begin(client, {"path": "a", "logged_at_ms": 1})
        part = {"number": 1, "size": 100, "checksum": "x"}
        signed = await client.post(paths.upload(begun["upload_id"]) + "/parts", json={"parts": [part]})
        assert (await client.put((await signed.json())["parts"][0]["url"], data=body)).status == 400
        import base64

        part["checksum"] = base64.b64encode(hashlib.sha256(body).digest()).decode()
        signed = await client.post(paths.upload(begun["upload_id"]) + "/parts", json={"parts": [part]})
        assert (await client.put((await signed.json())["parts"][0]["url"], data=body)).status == 200
        done = {"upload_id": begun["upload_id"], "size": 100, "sha256": "0" * 64}
        answer = await (await client.post(paths.UPLOADS + "/complete", json={"uploads": [done]})).json()
        assert answer["files"][0]["state"] == "refused"
        assert (await get(client, TREE))["files"] == []
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("size", [-1, limits.MAX_ARTIFACT_BYTES, limits.MAX_ARTIFACT_BYTES + 1, 2**62, True, 1.5])
async def test_a_size_that_no_file_can_have_is_refused_at_once(database_url, monkeypatch, size):
    def never(*said):
        raise AssertionError("a list of so many parts takes all memory")

    monkeypatch.setattr("stepstream_ingest.artifacts.uploads.gaps", never)
    async with running(database_url) as client:
        (begun,) = await begin(client, {"path": "a", "logged_at_ms": 1})
        sent = {"uploads": [{"upload_id": begun["upload_id"], "size": size}]}
        async with client.post(paths.UPLOADS + "/complete", json=sent) as response:
            answer = await response.json()
    if size == limits.MAX_ARTIFACT_BYTES:  # of a file whose size was announced
        assert (answer["files"][0]["state"], answer["files"][0]["code"]) == ("refused", "INVALID_PARAMETER_VALUE")
    else:
        assert (response.status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


async def test_a_hostile_page_is_saved_and_never_shown(database_url):
    page = b"<html><script>alert(1)</script></html>"
    async with running(database_url) as client:
        for path, kind in (("a.html", "text/html"), ("b.svg", "image/svg+xml")):
            await put(client, path, page, content_type=kind)
            response = await client.get(TREE + "/content", params={"path": path})
            assert response.status == 200
            assert response.headers["Content-Type"] == "application/octet-stream"
            assert response.headers["Content-Disposition"].startswith("attachment")
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "sandbox" in response.headers["Content-Security-Policy"]
            preview = await client.get(TREE + "/preview", params={"path": path})
            assert preview.content_type == "application/json"
            assert (await preview.json())["kind"] == "text"
            assert "sandbox" in preview.headers["Content-Security-Policy"]


async def preview(client, path):
    response = await client.get(TREE + "/preview", params={"path": path})
    assert response.status == 200, await response.text()
    return response


async def test_texts_tables_and_images_are_shown_from_their_beginning(database_url):
    async with running(database_url) as client:
        await put(client, "a.json", json.dumps({"a": [1, float("inf")]}).encode())
        assert (await (await preview(client, "a.json")).json())["value"] == {"a": [1, "Infinity"]}
        await put(client, "a.txt", "grüße".encode() + b"x" * 300_000)
        shown = await (await preview(client, "a.txt")).json()
        assert (shown["kind"], shown["truncated"], len(shown["text"]) < 300_000) == ("text", True, True)
        rows = "\n".join(f"{n},{n * n}" for n in range(200_000))
        await put(client, "a.csv", b"n,square\n" + rows.encode())
        shown = await (await preview(client, "a.csv")).json()
        assert (shown["columns"], shown["rows"][3], len(shown["rows"])) == (["n", "square"], ["3", "9"], 100)
        assert shown["rows_in_all"] is None
        out = io.BytesIO()
        pq.write_table(pa.table({"n": range(50_000), "x": [float("nan")] * 50_000}), out, row_group_size=10_000)
        await put(client, "a.parquet", out.getvalue())
        shown = await (await preview(client, "a.parquet")).json()
        assert (shown["columns"], shown["rows"][2], shown["rows_in_all"]) == (["n", "x"], [2, "nan"], 50_000)
        await put(client, "broken.parquet", b"PAR1" + b"\0" * 100)
        response = await client.get(TREE + "/preview", params={"path": "broken.parquet"})
        assert response.status == 400
        png = b"\x89PNG\r\n\x1a\n" + b"\0" * 50
        await put(client, "called.html", png, content_type="text/html")
        assert (await preview(client, "called.html")).content_type == "image/png"
        await put(client, "a.bin", bytes(range(256)))
        assert (await (await preview(client, "a.bin")).json())["kind"] == "binary"
        await put(client, "empty", b"")
        assert (await (await preview(client, "empty")).json())["text"] == ""


@pytest.mark.parametrize(
    "text",
    ['{"half": "\\ud800"}', "[" * 300 + "]" * 300, '{"\\udfff": 1}', "[" * 100_000 + "]" * 100_000],
    ids=["half a character", "300 levels", "half a character in a name", "100000 levels"],
)
async def test_json_that_cannot_be_written_again_is_shown_as_text(database_url, text):
    async with running(database_url) as client:
        await put(client, "a.json", text.encode())
        shown = await (await preview(client, "a.json")).json()
        assert (shown["kind"], shown["text"]) == ("text", text)


async def test_whole_numbers_that_a_browser_would_round_are_shown_as_text(database_url):
    async with running(database_url) as client:
        await put(client, "a.json", b'{"a": 123456789012345, "b": 18446744073709551616, "c": -99999999999999999999}')
        value = (await (await preview(client, "a.json")).json())["value"]
        assert value == {"a": 123456789012345, "b": "18446744073709551616", "c": "-99999999999999999999"}


def parquet(*columns, names, **said):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(list(columns), names=list(names)), out, **said)
    return out.getvalue()


async def test_values_that_python_has_no_word_for_are_shown_as_they_are(database_url):
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb")])
    far = pa.array([2**31 - 1], pa.int32()).cast(pa.date32())
    late = pa.array([2**62], pa.int64()).cast(pa.timestamp("us"))
    listed = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), far)
    async with running(database_url) as client:
        await put(client, "a.parquet", parquet(bad, far, late, listed, names="abcd"))
        shown = await (await preview(client, "a.parquet")).json()
        assert shown["rows"] == [["a\ufffdb", str(2**31 - 1), str(2**62), "(list<element: date32[day]>)"]]


async def test_columns_of_one_name_are_all_shown(database_url):
    async with running(database_url) as client:
        await put(client, "a.parquet", parquet(pa.array([1, 2]), pa.array([3, 4]), pa.array([5, 6]), names="aba"))
        shown = await (await preview(client, "a.parquet")).json()
        assert (shown["columns"], shown["rows"]) == (["a", "b", "a"], [[1, 3, 5], [2, 4, 6]])
        many = [pa.array([number]) for number in range(250)]
        await put(client, "b.parquet", parquet(*many, names=[f"c{number}" for number in range(250)]))
        shown = await (await preview(client, "b.parquet")).json()
        assert (len(shown["columns"]), shown["rows"], shown["more_columns"]) == (200, [list(range(200))], 50)
        await put(client, "c.parquet", parquet(pa.array([], pa.int64()), names="a"))
        shown = await (await preview(client, "c.parquet")).json()
        assert (shown["columns"], shown["rows"], shown["rows_in_all"]) == (["a"], [], 0)


async def test_a_table_that_unpacks_to_too_much_is_not_shown(database_url, monkeypatch):
    monkeypatch.setattr("stepstream_ingest.artifacts.preview.UNPACKED_BYTES", 2**20)
    bomb = parquet(pa.array(["x" * 2**21] * 4), names="a", compression="zstd", use_dictionary=False)
    assert len(bomb) < 2**16
    async with running(database_url) as client:
        await put(client, "a.parquet", bomb)
        response = await client.get(TREE + "/preview", params={"path": "a.parquet"})
        assert response.status == 413


async def test_long_listings_come_in_pages(database_url):
    async with running(database_url) as client:
        for number in range(25):
            await put(client, f"d/{number:02}", b"x")
        seen, after = [], ""
        while True:
            page = await get(client, f"{TREE}?path=d", limit=10, after=after)
            seen += [file["path"] for file in page["files"]]
            if "next" not in page:
                break
            after = page["next"]
        assert seen == [f"d/{number:02}" for number in range(25)]
        assert len((await get(client, TREE, recursive=1, limit=10))["files"]) == 10


async def test_a_removed_run_takes_its_artifacts_with_it(database_url):
    async with running(database_url) as client:
        await put(client, "a", b"x")
        await client.delete(paths.run(RUN))
        await client.post(paths.GC, json={})
        assert await fetch(database_url, "SELECT FROM artifacts") == []
        collected = await (await client.post(paths.ARTIFACT_GC, json={"grace_s": 0})).json()
        assert collected["objects"] == 1
