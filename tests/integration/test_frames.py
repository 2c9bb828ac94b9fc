import asyncio
import base64
import gzip
import random
import zlib

import pytest

from stepstream_ingest import bodies
from stepstream_schema import batch, limits, paths
from stepstream_schema.records import Dataset, Params, Status, Tags
from tests.integration.app import RUN, WRITER, fetch, frame, get, metrics, post, running, start, stored_points


async def test_a_frame_sent_twice_is_stored_once(database_url):
    data = frame(1, start(), metrics({"loss": [1.0, 2.0]}))
    async with running(database_url) as client:
        first = await post(client, data)
        again = await post(client, data, data)
    assert (first["stored"], first["duplicates"]) == (1, 0)
    assert (again["stored"], again["duplicates"]) == (0, 2)
    assert await stored_points(database_url) == 2


async def test_reordered_frames_by_many_connections_and_two_servers_are_stored_once(database_url):
    frames = [frame(seq, metrics({"loss": [float(seq)]}, first_step=seq)) for seq in range(1, 201)]
    requests = [frames[start : start + 10] for start in range(0, 200, 5)]
    random.Random(1).shuffle(requests)
    async with running(database_url) as one, running(database_url) as two:
        answers = await asyncio.gather(*[post(client, *request) for request in requests for client in (one, two)])
    assert sum(answer["stored"] for answer in answers) == 200
    assert await stored_points(database_url) == 200
    rows = await fetch(database_url, "SELECT mark, beyond FROM writers")
    assert [(row["mark"], row["beyond"]) for row in rows] == [(200, b"")]


async def test_a_bad_frame_is_refused_by_index_and_its_neighbours_live(database_url):
    good, last = frame(1, start(), metrics({"loss": [1.0]})), frame(3, metrics({"loss": [3.0]}))
    bad = bytearray(frame(2, metrics({"loss": [2.0]})))
    bad[-1] ^= 0xFF
    async with running(database_url) as client:
        answer = await post(client, good, bytes(bad), b"\xc1", last)
    assert answer["stored"] == 2
    assert [(one["index"], one["code"]) for one in answer["refused"]] == [(1, "malformed"), (2, "malformed")]
    assert all(one["message"] for one in answer["refused"])
    # The refused frame's number is consumed: the mark did not stop before it.
    assert (await fetch(database_url, "SELECT mark FROM writers"))[0]["mark"] == 3


async def test_a_frame_too_far_ahead_is_sent_back_and_taken_once_the_mark_has_moved(database_url):
    far = frame(limits.CURSOR_WINDOW_FRAMES + 2, metrics({"loss": [1.0]}))
    async with running(database_url) as client:
        answer = await post(client, far)
        assert answer["ahead"] == [{"index": 0, "mark": 0}]
        assert await stored_points(database_url) == 0
        await post(client, frame(1), frame(2))
        assert (await post(client, far))["stored"] == 1
    assert await stored_points(database_url) == 1


async def test_a_bad_frame_too_far_ahead_is_refused_only_when_its_number_can_be_consumed(database_url):
    bad = bytearray(frame(limits.CURSOR_WINDOW_FRAMES + 2, metrics({"loss": [1.0]})))
    bad[-1] ^= 0xFF
    async with running(database_url) as client:
        first = await post(client, bytes(bad))
        assert (first["refused"], [one["index"] for one in first["ahead"]]) == ([], [0])
        await post(client, frame(1), frame(2))
        assert [one["code"] for one in (await post(client, bytes(bad)))["refused"]] == ["malformed"]


async def test_empty_frames_consume_their_numbers_and_leave_no_row(database_url):
    async with running(database_url) as client:
        assert (await post(client, frame(1), frame(2)))["stored"] == 2
    assert await fetch(database_url, "SELECT 1 FROM frames") == []
    assert (await fetch(database_url, "SELECT mark FROM writers"))[0]["mark"] == 2


async def test_a_run_is_born_by_frames_and_a_placeholder_gets_its_name_later(database_url):
    async with running(database_url) as client:
        await post(client, frame(2, metrics({"loss": [1.0]})))
        placeholder = await get(client, paths.run(RUN))
        assert (placeholder["experiment"], placeholder["announced"]) == ("Default", False)
        await post(client, frame(1, start("named")))
        await post(client, frame(1, start("too late"), writer=78))
        run = await get(client, paths.run(RUN))
    assert (run["name"], run["experiment"], run["user"], run["start_time_ms"]) == ("named", "e", "me", 5)
    assert run["status"] == "RUNNING"
    assert [one["writer"] for one in run["writers"]] == [WRITER, 78]


async def test_a_param_keeps_its_first_value_and_the_conflict_comes_back(database_url):
    async with running(database_url) as client:
        await post(client, frame(1, start(), Params(items=(("lr", "1"), ("seed", "7")))))
        second = frame(2, Params(items=(("lr", "2"), ("seed", "7"), ("new", "x"))), metrics({"loss": [1.0]}))
        answer = await post(client, second)
        run = await get(client, paths.run(RUN))
    assert answer["stored"] == 1
    assert answer["param_conflicts"] == [{"run_id": RUN, "key": "lr", "stored": "1", "refused": "2"}]
    assert run["params"] == {"lr": "1", "new": "x", "seed": "7"}
    assert run["param_conflicts"] == 1


async def test_a_run_that_is_born_in_a_deleted_experiment_is_stored_and_said_once(database_url):
    async with running(database_url) as client:
        made = await (await client.post(paths.EXPERIMENTS, json={"name": "old"})).json()
        place = paths.experiment(made["experiment_id"])
        assert (await client.delete(place)).status == 200
        answer = await post(
            client, frame(1, start(experiment="old")), frame(1, start(experiment="e"), run_id="2" * 32, writer=5)
        )
        expected = {"run_id": RUN, "experiment_id": made["experiment_id"], "experiment": "old"}
        assert (answer["stored"], answer["deleted_experiments"]) == (2, [expected])
        for later in (frame(2, metrics({"loss": [1.0]})), frame(1, start(experiment="old"), writer=6, rank=1)):
            assert (await post(client, later))["deleted_experiments"] == []
        search = {"experiment_ids": [made["experiment_id"]], "view": "active"}
        await client.post(place + "/restore")
        found = await (await client.post(paths.RUNS + "/search", json=search)).json()
        assert [run["run_id"] for run in found["runs"]] == [RUN]


async def test_the_last_tag_by_event_time_stays_whatever_the_order_of_arrival(database_url):
    async with running(database_url) as client:
        await post(client, frame(1, start(), Tags(items=(("note", "new", 20), ("gone", "x", 10)))))
        await post(client, frame(2, Tags(items=(("note", "old", 10), ("gone", None, 11), ("gone", "y", 9)))))
        run = await get(client, paths.run(RUN))
    assert run["tags"] == {"note": "new", "mlflow.runName": "first"}


async def test_a_run_is_called_what_its_tag_says(database_url):
    async with running(database_url) as client:
        await post(client, frame(1, start(), Tags(items=(("mlflow.runName", "other", 20),))))
        assert (await get(client, paths.run(RUN)))["name"] == "other"
        await post(client, frame(2, Tags(items=(("mlflow.runName", "older", 10),))))
        run = await get(client, paths.run(RUN))
    assert (run["name"], run["tags"]) == ("other", {"mlflow.runName": "other"})


async def test_what_a_run_has_read_comes_in_frames_and_its_first_words_stay(database_url):
    def dataset(name, **said):
        texts = dict.fromkeys(("source_type", "source", "schema", "profile"), "") | {"digest": "d", "tags": ()}
        return Dataset(name=name, **(texts | said))

    other = "f" * 32
    async with running(database_url) as client:
        first = dataset("iris", source="here", tags=(("mlflow.data.context", "train"),))
        await post(client, frame(1, start(), dataset("wine"), first, metrics({"loss": [1.0]})))
        again = dataset("iris", source="there", tags=(("mlflow.data.context", "eval"),))
        await post(client, frame(2, again), frame(1, start(), again, run_id=other), frame(2, again))
        run, twin = await get(client, paths.run(RUN)), await get(client, paths.run(other))
    read = {one["name"]: one for one in run["datasets"]}
    assert {name: one["source"] for name, one in read.items()} == {"iris": "here", "wine": ""}
    assert read["iris"]["tags"] == {"mlflow.data.context": "train"}
    # One dataset of the experiment; each run says itself what it used it for.
    assert (twin["datasets"][0]["source"], twin["datasets"][0]["tags"]) == ("here", {"mlflow.data.context": "eval"})


async def test_rank_0_finishes_the_run_and_another_ranks_failure_is_recorded(database_url):
    async with running(database_url) as client:
        await post(client, frame(1, start(), rank=0), frame(1, start(), writer=78, rank=1))
        await post(client, frame(2, Status(status="FAILED", time_ms=30), writer=78, rank=1))
        assert (await get(client, paths.run(RUN)))["status"] == "RUNNING"
        await post(client, frame(2, Status(status="FINISHED", time_ms=40), rank=0))
        run = await get(client, paths.run(RUN))
    assert (run["status"], run["end_time_ms"]) == ("FINISHED", 40)
    assert {one["rank"]: one["status"] for one in run["writers"]} == {0: "FINISHED", 1: "FAILED"}


async def test_an_older_status_that_arrives_late_changes_nothing(database_url):
    async with running(database_url) as client:
        await post(client, frame(1, start()), frame(3, Status(status="FINISHED", time_ms=40)))
        await post(client, frame(2, Status(status="RUNNING", time_ms=10)))
        assert (await get(client, paths.run(RUN)))["status"] == "FINISHED"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic !!"}, 401),
        ({"Authorization": "Bearer secret"}, 200),
        ({"Authorization": "Bearer before"}, 200),
        ({"Authorization": "Basic " + base64.b64encode(b"anybody:secret").decode()}, 200),
    ],
)
async def test_only_those_with_the_token_may_write(database_url, headers, status):
    async with running(database_url, token="secret", old_tokens=["before"]) as client:
        response = await client.post(paths.FRAMES, data=batch.pack([frame(1, start())]), headers=headers)
        assert response.status == status
        assert (await client.get(paths.HEALTH)).status == 200
        assert (await client.get(paths.METRICS)).status == 401


async def test_a_request_beyond_the_bounds_is_told_so(database_url):
    async with running(database_url) as client:
        too_long = await client.post(paths.FRAMES, data=b"x" * (limits.MAX_REQUEST_BYTES + 1))
        assert too_long.status == 413
        assert (await client.post(paths.FRAMES, data=b"no msgpack")).status == 400
        too_many = await client.post(paths.FRAMES, data=batch.pack([b""] * (limits.MAX_FRAMES_PER_REQUEST + 1)))
        assert too_many.status in (400, 413)
        assert (await too_many.json())["message"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP", "identity, gzip"])
async def test_a_compressed_body_is_refused_before_it_is_inflated(database_url, encoding):
    body = (zlib if encoding == "deflate" else gzip).compress(batch.pack([frame(1, start())]))
    async with running(database_url) as client:
        response = await client.post(paths.FRAMES, data=body, headers={"Content-Encoding": encoding})
        assert response.status == 415, await response.text()
        assert (await response.json())["error_code"] == "UNSUPPORTED_MEDIA_TYPE"
        as_it_is = await client.post(
            paths.FRAMES, data=batch.pack([frame(1, start())]), headers={"Content-Encoding": "identity"}
        )
        assert as_it_is.status == 200


async def test_a_body_that_stops_half_way_gives_its_room_back(database_url, later):
    async with running(database_url, queue_requests=1) as client:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        head = f"POST {paths.FRAMES} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        writer.write(head.encode() + b"half of it")
        await asyncio.sleep(0.1)
        assert (await client.post(paths.FRAMES, data=batch.pack([frame(1, start())]))).status == 429
        later(bodies.BODY_TIMEOUT_S)
        assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 408")
        assert (await post(client, frame(1, start())))["stored"] == 1
        writer.close()


async def test_a_full_queue_turns_requests_away_and_says_when_to_come_again(database_url):
    big = frame(1, metrics({f"k{n}": [random.random()] for n in range(5000)}))
    async with running(database_url, queue_bytes=len(big) + 100, queue_requests=1) as client:
        answers = await asyncio.gather(
            *[client.post(paths.FRAMES, data=batch.pack([big])) for _ in range(8)], return_exceptions=False
        )
        statuses = sorted(answer.status for answer in answers)
        assert set(statuses) <= {200, 429}
        assert 200 in statuses
        turned_away = [answer for answer in answers if answer.status == 429]
        assert turned_away
        assert all(answer.headers["Retry-After"] for answer in turned_away)
        assert (await post(client, big))["duplicates"] == 1


async def test_a_database_that_is_away_is_answered_with_503_and_nothing_is_lost(cluster, database_url):
    async with running(database_url.replace("/test_", "/nowhere_")) as client:
        response = await client.post(paths.FRAMES, data=batch.pack([frame(1, start())]))
        assert response.status == 503
        assert response.headers["Retry-After"]
        assert (await response.json())["error_code"] == "DATABASE_AWAY"
        # Nobody should restart a server whose database is away; nor send it requests.
        assert (await client.get(paths.HEALTH)).status == 200
        assert (await client.get(paths.READY)).status == 503


async def test_counters_tell_what_was_stored_and_what_was_refused(database_url):
    async with running(database_url) as client:
        await post(client, frame(1, start(), metrics({"a": [1.0, 2.0, 3.0]})), b"bad")
        text = await (await client.get(paths.METRICS)).text()
    for name in ("points_stored_total", "frames_refused_total", "commit_seconds_bucket", "queue_bytes"):
        assert f"stepstream_{name}" in text
