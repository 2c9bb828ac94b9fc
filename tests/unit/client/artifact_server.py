"""A server and its store whose faults are switched while it runs: a real one has them only when it pleases."""

import asyncio
import base64
import contextlib
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web

from stepstream_schema import limits


class ArtifactServer:
    """Speaks the protocol of docs/artifacts.md; what it lists is in `files`."""

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        """What was asked, in order: announce, sign, put, complete; list, urls, get."""
        self.announced: list[list[dict[str, Any]]] = []
        self.fault: Callable[[str], web.Response | None] = lambda what: None
        """Answers in place of the server; it has then done nothing."""
        self.lose_answer: Callable[[str], bool] = lambda what: False
        """Whether to hang up instead of answering; it has then done all."""
        self.gates: dict[str, threading.Event] = {}
        """What waits until it is opened."""
        self.wants_md5 = False
        self.checksum = "crc32"
        """Of parts."""
        self.hashed = True
        """Whether it knows the SHA-256 of what it lists; of what came by other ways it does not."""
        self._objects: dict[str, bytes] = {}
        """What was listed, each version of a file by an id of its own."""
        self._numbers = itertools.count()
        self._uploads: dict[str, dict[str, Any]] = {}
        self._by_hash: dict[str, bytes] = {}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/v1/runs/{run}/artifacts/uploads", self._faulty("announce", self._announce))
        app.router.add_post("/v1/artifacts/uploads/complete", self._faulty("complete", self._complete))
        app.router.add_post("/v1/artifacts/uploads/{id}/parts", self._faulty("sign", self._sign))
        app.router.add_get("/v1/runs/{run}", self._run)
        app.router.add_get("/v1/runs/{run}/artifacts", self._faulty("list", self._list))
        app.router.add_post("/v1/runs/{run}/artifacts/urls", self._faulty("urls", self._urls))
        app.router.add_get("/get/{id}", self._faulty("get", self._get))
        app.router.add_put("/put/{id}", self._faulty("put", self._put))
        app.router.add_put("/put/{id}/{number}", self._faulty("put", self._put))
        return app

    def _faulty(self, what: str, handle: Any) -> Any:
        async def handler(request: web.Request) -> web.StreamResponse:
            self.asked.append(what)
            if what in self.gates:
                await asyncio.to_thread(self.gates[what].wait)
            wrong = self.fault(what)
            if wrong is not None:
                # As real ones do where they can: the body is taken, and then refused.
                await request.read()
                return web.Response(status=wrong.status, body=wrong.body, headers=wrong.headers)
            answer: web.Response = await handle(request)
            if self.lose_answer(what):
                assert request.transport is not None
                request.transport.close()
            return answer

        return handler

    async def _run(self, request: web.Request) -> web.Response:
        return web.json_response({"run": {}})

    async def _announce(self, request: web.Request) -> web.Response:
        said = (await request.json())["files"]
        self.announced.append(said)
        return web.json_response({"files": [self._begun(file) for file in said]})

    def _begun(self, file: dict[str, Any]) -> dict[str, Any]:
        if file.get("sha256") in self._by_hash:
            self.files[file["path"]] = self._by_hash[file["sha256"]]
            return {"state": "stored"}
        whole = bool(file.get("sha256")) and file["size"] <= limits.SINGLE_PUT_BYTES
        if whole and self.wants_md5 and not file.get("md5"):
            return {"state": "refused", "code": "MD5_REQUIRED", "message": "say the md5"}
        number = f"{next(self._numbers):032x}"
        self._uploads[number] = {"file": file, "parts": {}}
        if whole:
            headers = {"Content-MD5": file["md5"]} if self.wants_md5 else {}
            return {"state": "put", "upload_id": number, "method": "PUT", "url": f"/put/{number}", "headers": headers}
        return {
            "state": "parts",
            "upload_id": number,
            "part_bytes": limits.PART_BYTES,
            "checksum": self.checksum,
            "have": [],
        }

    async def _sign(self, request: web.Request) -> web.Response:
        number = request.match_info["id"]
        if number not in self._uploads:
            return web.json_response({"code": "RESOURCE_DOES_NOT_EXIST", "message": "announce it"}, status=404)
        wanted = (await request.json())["parts"]
        signed = [
            {"number": one["number"], "method": "PUT", "url": f"/put/{number}/{one['number']}", "headers": {}}
            for one in wanted
        ]
        return web.json_response({"parts": signed})

    async def _put(self, request: web.Request) -> web.Response:
        body = await request.read()
        upload = self._uploads[request.match_info["id"]]
        if self.wants_md5 and request.headers["Content-MD5"] != base64.b64encode(hashlib.md5(body).digest()).decode():
            return web.Response(status=400, text="<Code>BadDigest</Code>")
        upload["parts"][int(request.match_info.get("number", 1))] = body
        return web.Response()

    async def _complete(self, request: web.Request) -> web.Response:
        said = (await request.json())["uploads"]
        return web.json_response({"files": [self._completed(one) for one in said]})

    def _completed(self, said: dict[str, Any]) -> dict[str, Any]:
        number = said["upload_id"]
        upload = self._uploads.get(number)
        if upload is None:
            code = "RESOURCE_DOES_NOT_EXIST"
            return {"upload_id": number, "state": "refused", "code": code, "message": "announce it again"}
        body = b"".join(part for _, part in sorted(upload["parts"].items()))
        expected = upload["file"].get("sha256") or said.get("sha256")
        if hashlib.sha256(body).hexdigest() != expected:
            return {
                "upload_id": number,
                "state": "refused",
                "code": "INVALID_PARAMETER_VALUE",
                "message": "other bytes",
            }
        del self._uploads[number]
        self._by_hash[expected] = self.files[upload["file"]["path"]] = body
        return {"upload_id": number, "state": "stored"}

    async def _list(self, request: web.Request) -> web.Response:
        below = request.query["path"]
        found = [path for path in sorted(self.files) if not below or path == below or path.startswith(f"{below}/")]
        return web.json_response({"files": [self._listed(path) for path in found]})

    async def _urls(self, request: web.Request) -> web.Response:
        wanted = (await request.json())["paths"]
        return web.json_response({"files": [self._signed(path) for path in wanted]})

    def _listed(self, path: str) -> dict[str, Any]:
        body = self.files[path]
        sha256 = hashlib.sha256(body).hexdigest() if self.hashed else None
        return {"path": path, "size": len(body), "sha256": sha256, "is_dir": False}

    def _signed(self, path: str) -> dict[str, Any]:
        if path not in self.files:
            return {"path": path, "state": "missing"}
        number = f"{next(self._numbers):032x}"
        known = next((key for key, body in self._objects.items() if body is self.files[path]), number)
        self._objects[known] = self.files[path]
        url = f"/get/{known}?signature={number}"
        return self._listed(path) | {"state": "stored", "method": "GET", "url": url, "headers": {}}

    async def _get(self, request: web.Request) -> web.Response:
        body = self._objects[request.match_info["id"]]
        asked = request.http_range
        return web.Response(status=206, body=body[asked.start : asked.stop])


@contextlib.contextmanager
def running() -> Iterator[ArtifactServer]:
    """On a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = ArtifactServer()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(server.app(), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield server
    finally:
        for gate in server.gates.values():
            gate.set()
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
