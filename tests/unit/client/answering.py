"""A real HTTP server whose answers a test says, and which notes who has asked for what."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answering:
    uri: str = ""
    status: int = 200
    body: bytes = b"{}"
    moved: Mapping[str, str] = field(default_factory=dict)
    """Where what was asked for is now."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Paths, and what was said as Authorization."""


@contextmanager
def answering(**said: object) -> Iterator[Answering]:
    answer = Answering(**said)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer.asked.append((self.path, self.headers.get("Authorization")))
            place = answer.moved.get(self.path)
            self.send_response(answer.status if place is None else 302)
            if place is not None:
                self.send_header("Location", place)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        answer.uri = f"http://127.0.0.1:{server.server_port}"
        try:
            yield answer
        finally:
            server.shutdown()
            thread.join()
