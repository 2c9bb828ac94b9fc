-- name: experiment_by_name
-- The number of an experiment.
SELECT experiment_id FROM experiments WHERE name = $1

-- name: experiments_by_ids
-- Experiments.
SELECT experiment_id, name, lifecycle_stage, created_at_ms, updated_at_ms, artifact_location
FROM experiments WHERE experiment_id = ANY($1::bigint[])

-- name: experiment_tags
-- Tags of experiments.
SELECT experiment_id, key, value FROM experiment_tags WHERE experiment_id = ANY($1::bigint[]) ORDER BY experiment_id, key

-- name: active_experiments
-- All that are not deleted.
SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'active'

-- name: new_run
-- A run that is made by a request; nothing when it is there, which may be by a frame.
INSERT INTO runs (run_id, experiment_id, name, user_id, start_time_ms) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING RETURNING run_id

-- name: run_job
-- What frames have said of a run as a job.
SELECT announced, lost, (SELECT count(*) FROM param_conflicts WHERE run_id = $1) AS param_conflicts
FROM runs WHERE run_id = $1

-- name: run_writers
-- Who has written to a run.
SELECT w.writer, w.rank, w.attempt, w.status, w.mark AS frames,
    (extract(epoch FROM w.seen_at) * 1000)::bigint AS seen_at_ms
FROM writers AS w WHERE w.run_id = $1 ORDER BY w.rank NULLS FIRST, w.attempt, w.writer

-- name: run_tags
-- The tags of a run.
SELECT key, value FROM tags WHERE run_id = $1 AND value IS NOT NULL ORDER BY key

-- name: finish_run
-- A request ends the run; a statement of a later time stays.
UPDATE runs SET status = $2, end_time_ms = $3, status_time_ms = $3, status_writer = 0, status_seq = 0, lost = false
WHERE run_id = $1 AND status_time_ms <= $3

-- name: fail_silent_runs
-- Runs whose writers have promised heartbeats and have all been silent for too long, by PostgreSQL's clock, while
-- they could have been heard for as long.
UPDATE runs AS r
SET status = 'FAILED', lost = true, end_time_ms = (extract(epoch FROM heard.seen_at) * 1000)::bigint
FROM (
    -- Run by run: a join may read all writers that there have ever been.
    SELECT running.run_id, said.seen_at, said.heartbeat_s
    FROM runs AS running CROSS JOIN LATERAL (
        SELECT max(w.seen_at) AS seen_at, max(w.heartbeat_s) AS heartbeat_s FROM writers AS w
        WHERE w.run_id = running.run_id
    ) AS said
    WHERE running.status = 'RUNNING'
) AS heard
WHERE r.run_id = heard.run_id AND r.status = 'RUNNING' AND heard.heartbeat_s > 0
    AND heard.seen_at < clock_timestamp() - make_interval(secs => greatest($1::float8, 4 * heard.heartbeat_s))
    AND $2::float8 > greatest($1::float8, 4 * heard.heartbeat_s)
RETURNING r.run_id

-- name: new_experiment
-- A new experiment; nothing when the name is taken, be it by a deleted one.
INSERT INTO experiments (name, artifact_location) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING experiment_id

-- name: set_experiment_tag
-- The last value stays.
INSERT INTO experiment_tags (experiment_id, key, value) VALUES ($1, $2, $3)
ON CONFLICT (experiment_id, key) DO UPDATE SET value = excluded.value

-- name: delete_experiment_tag
-- A tag goes.
DELETE FROM experiment_tags WHERE experiment_id = $1 AND key = $2 RETURNING key

-- name: rename_experiment
-- A new name; nothing when it is taken.
UPDATE experiments SET name = $2, updated_at_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint
WHERE experiment_id = $1 AND NOT EXISTS (SELECT FROM experiments WHERE name = $2 AND experiment_id <> $1)
RETURNING experiment_id

-- name: move_experiment
-- Deleted or restored, its runs with it; nothing when it is so already.
WITH moved AS (
    UPDATE experiments
    SET lifecycle_stage = $2, updated_at_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    WHERE experiment_id = $1 AND lifecycle_stage <> $2
    RETURNING experiment_id
), runs_moved AS (
    UPDATE runs SET lifecycle_stage = $2, deleted_at = CASE WHEN $2 = 'deleted' THEN now() END
    WHERE experiment_id IN (SELECT experiment_id FROM moved)
)
SELECT experiment_id FROM moved

-- name: update_run
-- What is null stays as it is; who only renames a run says nothing of its status.
UPDATE runs SET status = coalesce($2, status), end_time_ms = CASE WHEN $3 THEN $4 ELSE end_time_ms END,
    name = coalesce($5, name),
    status_time_ms = CASE WHEN $2::text IS NULL THEN status_time_ms
        ELSE (extract(epoch FROM clock_timestamp()) * 1000)::bigint END,
    status_writer = CASE WHEN $2::text IS NULL THEN status_writer ELSE 0 END,
    lost = lost AND $2::text IS NULL
WHERE run_id = $1

-- name: lock_run
-- Whether the run may be written to; it cannot be deleted meanwhile.
SELECT lifecycle_stage FROM runs WHERE run_id = $1 FOR SHARE

-- name: run_stage
-- Whether the run may be written to.
SELECT lifecycle_stage FROM runs WHERE run_id = $1

-- name: lock_run_alone
-- The same for what is read, changed and written back.
SELECT lifecycle_stage FROM runs WHERE run_id = $1 FOR UPDATE

-- name: stored_params
-- The values that stay.
SELECT key, value FROM params WHERE run_id = $1 AND key = ANY($2::text[])

-- name: log_params
-- The first value stays.
INSERT INTO params (run_id, key, value)
SELECT $1, key, value FROM unnest($2::text[], $3::text[]) AS said (key, value) ORDER BY key
ON CONFLICT DO NOTHING

-- name: log_tags
-- The last value stays: by the event's time, and of one time by its number.
INSERT INTO tags (run_id, key, value, event_time_ms, writer, seq)
SELECT $1, key, value, $4, 0, $5 FROM unnest($2::text[], $3::text[]) AS said (key, value) ORDER BY key
ON CONFLICT (run_id, key) DO UPDATE
SET value = excluded.value, event_time_ms = excluded.event_time_ms, writer = excluded.writer, seq = excluded.seq
WHERE (excluded.event_time_ms, excluded.writer, excluded.seq) > (tags.event_time_ms, tags.writer, tags.seq)

-- name: log_datasets
-- Datasets of an experiment that are not known yet.
INSERT INTO datasets (dataset_id, experiment_id, name, digest, source_type, source, schema, profile)
SELECT dataset_id, $1, name, digest, source_type, source, schema, profile
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
    AS said (dataset_id, name, digest, source_type, source, schema, profile)
ORDER BY name, digest
ON CONFLICT DO NOTHING

-- name: use_datasets
-- The run has read them; the first tags stay.
INSERT INTO run_datasets (run_id, dataset_id, tags)
SELECT DISTINCT ON (d.dataset_id) $1, d.dataset_id, said.tags::jsonb
FROM unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS said (name, digest, tags, place)
JOIN datasets AS d ON d.experiment_id = $2 AND d.name = said.name AND d.digest = said.digest
ORDER BY d.dataset_id, said.place
ON CONFLICT DO NOTHING

-- name: run_datasets
-- What runs have read.
SELECT r.run_id, d.name, d.digest, d.source_type, d.source, d.schema, d.profile, r.tags::text AS tags
FROM run_datasets AS r JOIN datasets AS d USING (dataset_id)
WHERE r.run_id = ANY($1::uuid[]) ORDER BY r.run_id, r.logged_at, d.name, d.digest

-- name: use_models
-- The run has read or made them.
INSERT INTO run_models (run_id, direction, model_id, step)
SELECT $1, $2, model_id, step FROM unnest($3::uuid[], $4::bigint[]) AS said (model_id, step) ORDER BY model_id
ON CONFLICT DO NOTHING

-- name: run_models
-- What runs have read and made.
SELECT run_id, direction, model_id, step FROM run_models WHERE run_id = ANY($1::uuid[]) ORDER BY run_id, model_id

-- name: new_model
-- A logged model; nothing when it is there.
INSERT INTO logged_models (model_id, experiment_id, name, model_type, source_run_id, created_at_ms, updated_at_ms)
VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING RETURNING model_id

-- name: models
-- Logged models, deleted ones included.
SELECT model_id, experiment_id, name, model_type, source_run_id, status, status_message, created_at_ms, updated_at_ms,
    lifecycle_stage
FROM logged_models WHERE model_id = ANY($1::uuid[])

-- name: set_model_status
-- Ready, or failed.
UPDATE logged_models SET status = $2, updated_at_ms = $3 WHERE model_id = $1 AND lifecycle_stage = 'active'
RETURNING model_id

-- name: delete_model
-- Deleted, be it once more.
UPDATE logged_models SET lifecycle_stage = 'deleted', updated_at_ms = $2 WHERE model_id = $1 RETURNING model_id

-- name: log_model_params
-- Params of a model.
INSERT INTO logged_model_params (model_id, key, value)
SELECT $1, key, value FROM unnest($2::text[], $3::text[]) AS said (key, value) ORDER BY key
ON CONFLICT DO NOTHING RETURNING key

-- name: set_model_tags
-- The last value stays.
INSERT INTO logged_model_tags (model_id, key, value)
SELECT $1, key, value FROM unnest($2::text[], $3::text[]) AS said (key, value) ORDER BY key
ON CONFLICT (model_id, key) DO UPDATE SET value = excluded.value

-- name: delete_model_tag
-- A tag goes.
DELETE FROM logged_model_tags WHERE model_id = $1 AND key = $2 RETURNING key

-- name: model_params
-- Params of models.
SELECT model_id, key, value FROM logged_model_params WHERE model_id = ANY($1::uuid[]) ORDER BY model_id, key

-- name: model_tags
-- Tags of models.
SELECT model_id, key, value FROM logged_model_tags WHERE model_id = ANY($1::uuid[]) ORDER BY model_id, key

-- name: known_models
-- Which of these models are there to be written to.
SELECT model_id FROM logged_models WHERE model_id = ANY($1::uuid[]) AND lifecycle_stage = 'active'

-- name: log_model_metrics
-- Metrics of models; one that is said again stays as it is.
INSERT INTO logged_model_metrics (run_id, model_id, key, step, time_ms, value, dataset_name, dataset_digest)
SELECT $1, model_id, key, step, time_ms, value, dataset_name, dataset_digest
FROM unnest($2::uuid[], $3::text[], $4::bigint[], $5::bigint[], $6::float8[], $7::text[], $8::text[])
    AS said (model_id, key, step, time_ms, value, dataset_name, dataset_digest)
ORDER BY model_id, key, time_ms, step
ON CONFLICT DO NOTHING

-- name: model_metrics
-- Metrics of models.
SELECT model_id, run_id, key, step, time_ms, value, dataset_name, dataset_digest
FROM logged_model_metrics WHERE model_id = ANY($1::uuid[]) ORDER BY model_id, key, time_ms, step, run_id

-- name: datasets_of_experiments
-- Datasets that runs of these experiments have read, each with the context it was read in.
SELECT DISTINCT d.experiment_id, d.name, d.digest, u.tags ->> 'mlflow.data.context' AS context
FROM datasets AS d JOIN run_datasets AS u USING (dataset_id) JOIN runs AS r USING (run_id)
WHERE d.experiment_id = ANY($1::bigint[]) AND r.lifecycle_stage = 'active'
ORDER BY d.experiment_id, d.name, d.digest, context LIMIT $2

-- name: runs_by_ids
-- Runs with their params and tags, with where their artifacts lie, and whether there is more to ask: a row a run.
SELECT r.run_id, r.experiment_id, r.name, r.user_id, r.status, r.start_time_ms, r.end_time_ms, r.lifecycle_stage,
    e.name AS experiment, coalesce(nullif(e.artifact_location, ''), 'mlflow-artifacts:/' || r.experiment_id) AS artifact_location,
    p.keys AS param_keys, p.values AS param_values, t.keys AS tag_keys, t.values AS tag_values,
    EXISTS (SELECT FROM run_datasets AS d WHERE d.run_id = r.run_id) AS has_datasets,
    EXISTS (SELECT FROM run_models AS m WHERE m.run_id = r.run_id) AS has_models
FROM runs AS r JOIN experiments AS e USING (experiment_id)
CROSS JOIN LATERAL (
    SELECT array_agg(key ORDER BY key) AS keys, array_agg(value ORDER BY key) AS values
    FROM params WHERE run_id = r.run_id
) AS p
CROSS JOIN LATERAL (
    SELECT array_agg(key ORDER BY key) AS keys, array_agg(value ORDER BY key) AS values
    FROM tags WHERE run_id = r.run_id AND value IS NOT NULL
) AS t
WHERE r.run_id = ANY($1::uuid[])

-- name: latest_of_runs
-- The latest value of each of their metrics: of the lowest rank's newest attempt the largest step, then time, then value.
-- Mostly it is there as a row a run; where frames wait they are looked through, and where there are many keys the series.
WITH known AS MATERIALIZED (
    SELECT run_id, keys, ranks, attempts, last_steps, last_times_ms, lasts FROM latest WHERE run_id = ANY($1::uuid[])
), fresh AS MATERIALIZED (
    SELECT DISTINCT run_id FROM frames WHERE run_id = ANY($1::uuid[])
)
SELECT run_id, keys, lasts AS values, last_steps AS steps, last_times_ms AS times_ms
FROM known WHERE keys IS NOT NULL AND run_id NOT IN (SELECT run_id FROM fresh)
UNION ALL
SELECT run_id, array_agg(key ORDER BY key), array_agg(value ORDER BY key), array_agg(step ORDER BY key),
    array_agg(time_ms ORDER BY key)
FROM (
    SELECT DISTINCT ON (run_id, key) run_id, key, value, step, time_ms
    FROM (
        SELECT s.run_id, s.key, s.rank, s.attempt, s.last_step AS step, s.last_time_ms AS time_ms, s.last_value AS value
        FROM series AS s
        WHERE s.run_id = ANY (ARRAY(SELECT run_id FROM known WHERE keys IS NULL)) AND s.points > 0
        UNION ALL
        SELECT k.run_id, x.key, x.rank, x.attempt, x.step, x.time_ms, x.value
        FROM known AS k, unnest(k.keys, k.ranks, k.attempts, k.last_steps, k.last_times_ms, k.lasts)
            AS x (key, rank, attempt, step, time_ms, value)
        WHERE k.run_id IN (SELECT run_id FROM fresh)
        UNION ALL
        SELECT f.run_id, x.key, coalesce(f.rank, -1), f.attempt, x.step, x.time_ms, x.value
        FROM frames AS f, unnest(f.keys, f.last_steps, f.last_times_ms, f.lasts) AS x (key, step, time_ms, value)
        WHERE f.run_id = ANY($1::uuid[])
    ) AS part
    ORDER BY run_id, key, rank, attempt DESC, step DESC, time_ms DESC, value = 'NaN', value DESC
) AS each
GROUP BY run_id
