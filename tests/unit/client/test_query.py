"""Questions to the server over a real HTTP server that sends on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stepstream import settings
from stepstream.query import Server

seen: list[tuple[str, str | None]] = []


@contextmanager
def serving(moved: dict[str, str]) -> Iterator[str]:
    """Answers {} everywhere, but at what has moved."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("Authorization")))
            self.send_response(302 if self.path in moved else 200)
            if self.path in moved:
                self.send_header("Location", moved[self.path])
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("said", "token", "told"),
    [("http://", "secret", "Bearer secret"), ("http://bob:pw@", None, "Basic Ym9iOnB3"), ("http://", None, None)],
)
def test_only_the_server_itself_is_told_who_asks_wherever_it_sends_on_to(said, token, told, tmp_path):
    seen.clear()
    with serving({}) as other, serving({"/a": "/b", "/b": other + "/c"}) as uri:
        loaded = settings.load({}, tracking_uri=said + uri.removeprefix("http://"), token=token, spool_dir=tmp_path)
        assert Server(loaded).ask("GET", "/a") == {}
    assert seen == [("/a", told), ("/b", told), ("/c", None)]
