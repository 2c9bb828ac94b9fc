"""What an open run says of itself where the server does not answer as it should."""

import stepstream
from tests.unit.client.answering import answering

RUN = "ab" * 16


def test_a_name_that_nobody_tells_is_asked_for_once(tmp_path):
    with answering(status=503) as server:
        run = stepstream.start_run(run_id=RUN, tracking_uri=server.uri, spool_dir=tmp_path, finish_timeout=0.1)
        assert [run.info.run_name, run.info.run_name] == [run.name, run.name]
        run.finish()
    assert [path for path, _ in server.asked] == [f"/v1/runs/{RUN}"]


def test_the_name_that_the_server_has_is_said(tmp_path):
    with answering(body=b'{"name": "by another"}') as server:
        run = stepstream.start_run(run_id=RUN, tracking_uri=server.uri, spool_dir=tmp_path, finish_timeout=0.1)
        assert [run.info.run_name, run.info.run_name] == ["by another"] * 2
        run.finish()
    assert len(server.asked) == 1
