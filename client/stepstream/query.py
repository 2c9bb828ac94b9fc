"""The border to urllib: questions to the server, asked and waited for. Never used while logging."""

import copy
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlencode

from stepstream import credentials
from stepstream.errors import QueryError
from stepstream.settings import Settings

TIMEOUT_S: Final = 60.0
HURRIED_S: Final = 5.0
"""For what can be done without."""
AUTHORIZATION: Final = "Authorization"


class Server:
    """Law: every method returns an answer or raises QueryError, which says what to do."""

    def __init__(self, settings: Settings) -> None:
        self.uri = settings.tracking_uri
        self._timeout_s = TIMEOUT_S
        self._authorization = credentials.header(settings.token, settings.tracking_uri)

    def hurried(self) -> "Server":
        """The same, for what can be done without."""
        other = copy.copy(self)
        other._timeout_s = HURRIED_S
        return other

    def get(self, path: str, accept: str = "application/json", **query: Any) -> bytes:
        """The body of an answer; a parameter that is None is not sent."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", f"{path}?{urlencode(given)}" if given else path, None, accept)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON object that answers a JSON object."""
        return self._read(self._ask("POST", path, json.dumps(body).encode(), "application/json"))

    def send(self, method: str, path: str, body: bytes, content_type: str) -> bytes:
        """The body of an answer to bytes of any kind."""
        return self._ask(method, path, body, "application/json", content_type)

    def send_file(self, method: str, path: str, local: Path) -> None:
        """Send a file, read while it is sent."""
        with local.open("rb") as file:
            self._ask(method, path, file, "application/json", "application/octet-stream", local.stat().st_size)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> dict[str, Any]:
        """The JSON object that answers; a parameter that is None is not sent."""
        given = {name: value for name, value in query.items() if value is not None}
        whole = f"{path}?{urlencode(given)}" if given else path
        sent = json.dumps(body).encode() if body is not None else None
        return self._read(self._ask(method, whole, sent, "application/json"))

    def delete(self, path: str) -> dict[str, Any]:
        """The JSON object that answers a DELETE."""
        return self._read(self._ask("DELETE", path, None, "application/json"))

    def pages(self, path: str, name: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Every entry of a list that comes in pages."""
        after = None
        while True:
            given = {name: value for name, value in {**query, "after": after}.items() if value is not None}
            page = self._read(self.get(f"{path}?{urlencode(given)}"))
            yield from page[name]
            after = page.get("next")
            if after is None:
                return

    def _read(self, body: bytes) -> dict[str, Any]:
        try:
            said = json.loads(body)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise QueryError(
                f"what answers at {self.uri} is no StepStream server, or something stands before it: "
                f"{body[:80].decode(errors='replace')!r}; is STEPSTREAM_TRACKING_URI right?"
            )
        return said

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | IO[bytes] | None,
        accept: str,
        content_type: str = "application/json",
        size: int | None = None,
    ) -> bytes:
        headers = {"Accept": accept} | ({"Content-Type": content_type} if body is not None else {})
        if size is not None:
            headers["Content-Length"] = str(size)
        request = urllib.request.Request(self.uri + path, body, headers, method=method)
        if self._authorization:
            request.add_unredirected_header(AUTHORIZATION, self._authorization)
        try:
            with urllib.request.build_opener(_Redirects).open(request, timeout=self._timeout_s) as response:
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            code, message = _reason(error)
            raise QueryError(message, status=error.code, error_code=code) from error
        except (OSError, http.client.HTTPException) as error:
            raise QueryError(f"{self.uri} cannot be reached ({error!r}); is STEPSTREAM_TRACKING_URI right?") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Only the server itself is told the token again, wherever it may send on to."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """As urllib does it."""
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        said = req.unredirected_hdrs.get(AUTHORIZATION)
        if request is not None and said and credentials.origin(newurl) == credentials.origin(req.full_url):
            request.add_unredirected_header(AUTHORIZATION, said)
        return request


def _reason(error: urllib.error.HTTPError) -> tuple[str, str]:
    try:
        said = json.loads(error.read())
        return str(said["error_code"]), str(said["message"])
    except (ValueError, KeyError, TypeError):
        return "HTTP_ERROR", f"the server answered {error.code} {error.reason}"
