"""By which names a server may be asked, and by which pages."""

import pytest

from stepstream_ingest import config
from stepstream_ingest.errors import ServerSetupError
from stepstream_ingest.hosts import is_foreign, is_known
from tests.unit.ingest.test_small import parsed


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "LOCALHOST", "ui.localhost:1", "127.0.0.1:5000", "10.1.2.3", "[::1]:5000"]
)
def test_what_no_stranger_can_make_lead_here_is_known(host):
    assert is_known(host, [])


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:5000", "localhost.evil.example", "127.0.0.1.evil.example", "", ":5000", "[::1"],
)
def test_what_a_stranger_can_make_lead_here_is_not(host):
    assert not is_known(host, [])


def test_a_name_that_is_allowed_is_known_whatever_its_port():
    assert is_known("Tracker.Example:8443", ["tracker.example"])
    assert not is_known("other.example", ["tracker.example"])


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({"Host": "h:1"}, False),
        ({"Host": "h:1", "Sec-Fetch-Site": "same-origin", "Origin": "http://h:1"}, False),
        ({"Host": "h:1", "Sec-Fetch-Site": "none"}, False),
        ({"Host": "h:1", "Sec-Fetch-Site": "same-site", "Origin": "http://h:2"}, True),
        ({"Host": "h:1", "Sec-Fetch-Site": "cross-site", "Origin": "null"}, True),
        ({"Host": "h:1", "Origin": "http://h:1"}, False),
        ({"Host": "h:1", "Origin": "https://evil.example"}, True),
        ({"Host": "h:1", "Origin": "null"}, True),
        ({"Host": "inner:1", "X-Forwarded-Host": "h", "Origin": "https://h"}, False),
        ({"Host": "inner:1", "X-Forwarded-Host": "h, proxy", "Origin": "https://h"}, False),
        ({"Host": "h", "Origin": "http://h:8080"}, False),
        ({"Host": "h:80", "Origin": "http://h"}, False),
        ({"Host": "h:443", "Origin": "http://h"}, True),
        ({"Host": "h:1", "Origin": "http://h:2"}, True),
        ({"Host": "h:1", "Origin": "http://h:x"}, True),
        ({"Host": "", "Origin": "file:///page"}, True),
    ],
)
def test_a_page_of_another_origin_is_foreign_and_what_is_no_browser_is_not(headers, foreign):
    assert is_foreign(headers) is foreign


@pytest.mark.parametrize(
    ("arguments", "environ", "names"),
    [
        ([], {}, []),
        ([], {"STEPSTREAM_TOKEN": "t"}, None),
        (["--host", "0.0.0.0", "--insecure"], {}, None),
        (["--allowed-hosts", "A.example, b.example,"], {"STEPSTREAM_TOKEN": "t"}, ["a.example", "b.example"]),
        ([], {"STEPSTREAM_ALLOWED_HOSTS": "a.example"}, ["a.example"]),
    ],
)
def test_without_a_token_on_this_machine_alone_no_other_name_is_taken(arguments, environ, names):
    assert config.load(parsed(*arguments), environ).allowed_hosts == names


@pytest.mark.parametrize("name", ["tracker.example:5150", "*.example", "https://tracker.example", "[::1]"])
def test_what_would_never_match_is_refused(name):
    with pytest.raises(ServerSetupError, match="without port"):
        config.load(parsed("--allowed-hosts", f"good.example,{name}"), {})
