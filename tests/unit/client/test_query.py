"""Questions to the server that are sent on."""

import pytest

from stepstream import settings
from stepstream.query import Server
from tests.unit.client.answering import answering


@pytest.mark.parametrize(
    ("said", "token", "told"),
    [
        ("http://", "secret", "Bearer secret"),
        ("http://bob:pw@", None, "Basic Ym9iOnB3"),
        ("http://bob@", None, "Basic Ym9iOg=="),
        ("http://", None, None),
    ],
)
def test_only_the_server_itself_is_told_who_asks_wherever_it_sends_on_to(said, token, told, tmp_path):
    with answering() as other, answering(moved={"/a": "/b", "/b": other.uri + "/c"}) as server:
        uri = said + server.uri.removeprefix("http://")
        loaded = settings.load({}, tracking_uri=uri, token=token, spool_dir=tmp_path)
        assert Server(loaded).ask("GET", "/a") == {}
    assert server.asked == [("/a", told), ("/b", told)]
    assert other.asked == [("/c", None)]
