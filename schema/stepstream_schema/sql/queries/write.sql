-- Group commit, in the order in which its transaction runs them. Rows are always locked in key order: two groups that
-- share writers or runs wait for one another and never deadlock.

-- name: insert_writers
-- Rows for writers that are not known yet; those that need a run get one where it is there, and not deleted.
INSERT INTO writers (run_id, writer, rank, attempt)
SELECT said.run_id, said.writer, said.rank, said.attempt
FROM unnest($1::uuid[], $2::bigint[], $3::integer[], $4::bigint[], $5::boolean[])
    AS said (run_id, writer, rank, attempt, needs_run)
WHERE NOT said.needs_run
    OR EXISTS (SELECT FROM runs AS r WHERE r.run_id = said.run_id AND r.lifecycle_stage = 'active')
ORDER BY said.run_id, said.writer
ON CONFLICT DO NOTHING

-- name: lock_writers
-- The cursors of the group's writers, locked until the commit, and what their runs are like.
SELECT w.run_id, w.writer, w.mark, w.beyond, r.lifecycle_stage, r.lost
FROM writers AS w
JOIN unnest($1::uuid[], $2::bigint[]) AS wanted (run_id, writer) USING (run_id, writer)
LEFT JOIN runs AS r ON r.run_id = w.run_id
ORDER BY w.run_id, w.writer
FOR UPDATE OF w

-- name: move_cursors
-- The cursors after the group; every writer in it has been heard.
UPDATE writers AS w
SET mark = moved.mark, beyond = moved.beyond, seen_at = clock_timestamp()
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bytea[]) AS moved (run_id, writer, mark, beyond)
WHERE w.run_id = moved.run_id AND w.writer = moved.writer

-- name: promise_heartbeats
-- How often these writers promise to be heard.
UPDATE writers AS w
SET heartbeat_s = said.heartbeat_s
FROM unnest($1::uuid[], $2::bigint[], $3::integer[]) AS said (run_id, writer, heartbeat_s)
WHERE w.run_id = said.run_id AND w.writer = said.writer

-- name: insert_experiments
-- Experiments that runs name and that do not exist yet.
INSERT INTO experiments (name)
SELECT name FROM unnest($1::text[]) AS name ORDER BY name
ON CONFLICT DO NOTHING

-- name: announce_runs
-- Runs that are born, or whose placeholder gets its name; the first announcement stays. Says which experiment is deleted.
INSERT INTO runs (run_id, experiment_id, name, user_id, start_time_ms)
SELECT said.run_id, e.experiment_id, said.name, said.user_id, said.start_time_ms
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[])
    AS said (run_id, experiment, name, user_id, start_time_ms)
JOIN experiments AS e ON e.name = said.experiment
ORDER BY said.run_id
ON CONFLICT (run_id) DO UPDATE
SET experiment_id = excluded.experiment_id, name = excluded.name, user_id = excluded.user_id,
    start_time_ms = excluded.start_time_ms, announced = true
WHERE NOT runs.announced
RETURNING runs.run_id, runs.experiment_id, (
    SELECT x.name FROM experiments AS x WHERE x.experiment_id = runs.experiment_id AND x.lifecycle_stage = 'deleted'
) AS deleted_experiment

-- name: place_runs
-- Placeholders for runs of which only points have arrived.
INSERT INTO runs (run_id, experiment_id, announced)
SELECT run_id, 0, false FROM unnest($1::uuid[]) AS run_id ORDER BY run_id
ON CONFLICT DO NOTHING

-- name: revive_runs
-- Runs that were given up and are heard again.
UPDATE runs SET status = 'RUNNING', end_time_ms = NULL, lost = false
WHERE lost AND run_id = ANY($1::uuid[])

-- name: insert_params
-- The first value stays.
INSERT INTO params (run_id, key, value)
SELECT run_id, key, value
FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS said (run_id, key, value, place)
ORDER BY run_id, key, place
ON CONFLICT DO NOTHING

-- name: find_param_conflicts
-- Values that differ from the one that stays.
SELECT said.run_id, said.key, p.value AS stored, said.value AS refused, said.writer, said.seq
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
    AS said (run_id, key, value, writer, seq)
JOIN params AS p ON p.run_id = said.run_id AND p.key = said.key
WHERE p.value <> said.value

-- name: record_param_conflicts
-- What was refused, for the run's page.
INSERT INTO param_conflicts (run_id, key, value, writer, seq)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
ON CONFLICT DO NOTHING

-- name: set_tags
-- The last by event time, writer and number stays, in whatever order they arrive.
INSERT INTO tags (run_id, key, value, event_time_ms, writer, seq)
SELECT DISTINCT ON (run_id, key) run_id, key, value, event_time_ms, writer, seq
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
    WITH ORDINALITY AS said (run_id, key, value, event_time_ms, writer, seq, place)
ORDER BY run_id, key, event_time_ms DESC, writer DESC, seq DESC, place DESC
ON CONFLICT (run_id, key) DO UPDATE
SET value = excluded.value, event_time_ms = excluded.event_time_ms, writer = excluded.writer, seq = excluded.seq
WHERE (excluded.event_time_ms, excluded.writer, excluded.seq) > (tags.event_time_ms, tags.writer, tags.seq)

-- name: set_writer_status
-- What each rank says of itself.
UPDATE writers AS w
SET status = said.status, status_time_ms = said.time_ms
FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[]) AS said (run_id, writer, status, time_ms)
WHERE w.run_id = said.run_id AND w.writer = said.writer

-- name: set_run_status
-- What rank 0, or the only writer, says of the run: the last by event time, writer and number stays.
UPDATE runs AS r
SET status = said.status, lost = false,
    end_time_ms = CASE WHEN said.status IN ('FINISHED', 'FAILED', 'KILLED') THEN said.time_ms END,
    status_time_ms = said.time_ms, status_writer = said.writer, status_seq = said.seq
FROM (
    SELECT DISTINCT ON (run_id) *
    FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
        AS each (run_id, status, time_ms, writer, seq)
    ORDER BY run_id, time_ms DESC, writer DESC, seq DESC
) AS said
WHERE r.run_id = said.run_id
    AND (said.time_ms, said.writer, said.seq) > (r.status_time_ms, r.status_writer, r.status_seq)

-- name: tag_names
-- Runs that were announced have their name as a tag, too; any tag that was set by somebody stays.
INSERT INTO tags (run_id, key, value, event_time_ms, writer, seq)
SELECT run_id, $2, name, 0, 0, 0 FROM runs WHERE run_id = ANY($1::uuid[]) AND name <> '' ORDER BY run_id
ON CONFLICT DO NOTHING

-- name: rename_runs
-- Runs are called what their tag says.
UPDATE runs AS r SET name = t.value FROM tags AS t
WHERE r.run_id = ANY($1::uuid[]) AND t.run_id = r.run_id AND t.key = $2 AND t.value IS NOT NULL AND r.name <> t.value

-- name: insert_datasets
-- Datasets that their experiments do not know yet.
INSERT INTO datasets (dataset_id, experiment_id, name, digest, source_type, source, schema, profile)
SELECT DISTINCT ON (r.experiment_id, said.name, said.digest)
    said.dataset_id, r.experiment_id, said.name, said.digest, said.source_type, said.source, said.schema, said.profile
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
    AS said (run_id, dataset_id, name, digest, source_type, source, schema, profile)
JOIN runs AS r ON r.run_id = said.run_id
ORDER BY r.experiment_id, said.name, said.digest
ON CONFLICT DO NOTHING

-- name: use_datasets
-- The runs have read them; the first tags stay.
INSERT INTO run_datasets (run_id, dataset_id, tags)
SELECT DISTINCT ON (r.run_id, d.dataset_id) r.run_id, d.dataset_id, said.tags::jsonb
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS said (run_id, name, digest, tags)
JOIN runs AS r ON r.run_id = said.run_id
JOIN datasets AS d ON d.experiment_id = r.experiment_id AND d.name = said.name AND d.digest = said.digest
ORDER BY r.run_id, d.dataset_id
ON CONFLICT DO NOTHING
