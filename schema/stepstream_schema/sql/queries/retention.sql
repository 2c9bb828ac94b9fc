-- Age and deletion. Every statement touches a bounded number of rows; loops are in the caller.

-- name: set_retention
-- How long an experiment keeps raw points, and its ended runs.
UPDATE experiments SET keep_raw_days = $2, keep_days = $3 WHERE experiment_id = $1
RETURNING experiment_id, name, keep_raw_days, keep_days

-- name: turn_to_age
-- Whether nobody else is at it; until the end of the transaction.
SELECT pg_try_advisory_xact_lock(hashtextextended('age', 0))

-- name: thin_old_chunks
-- Raw points that are older than their experiment keeps them go; the summaries stay. Run by run, each by the index of
-- what still has its points, and by their place: joins would rather read all chunks there are.
WITH old AS (
    SELECT c.place
    FROM experiments AS e
    JOIN runs AS r ON r.experiment_id = e.experiment_id
    CROSS JOIN LATERAL (
        SELECT ctid AS place
        FROM chunks
        WHERE run_id = r.run_id AND body IS NOT NULL AND written_at < now() - make_interval(days => e.keep_raw_days)
        LIMIT $1
        FOR UPDATE SKIP LOCKED
    ) AS c
    WHERE e.keep_raw_days IS NOT NULL
    LIMIT $1
)
UPDATE chunks SET body = NULL WHERE ctid = ANY (ARRAY(SELECT place FROM old))

-- name: expire_runs
-- Ended runs that are older than their experiment keeps them are deleted, as if by hand.
UPDATE runs SET lifecycle_stage = 'deleted', deleted_at = now()
WHERE run_id IN (
    SELECT r.run_id
    FROM experiments AS e JOIN runs AS r USING (experiment_id)
    WHERE e.keep_days IS NOT NULL AND r.lifecycle_stage = 'active' AND r.status <> 'RUNNING'
        AND r.end_time_ms < extract(epoch FROM now() - make_interval(days => e.keep_days)) * 1000
    LIMIT $1
    FOR UPDATE OF r SKIP LOCKED
)

-- name: delete_run
-- Deleted, and until the garbage is collected restorable.
UPDATE runs SET lifecycle_stage = 'deleted', deleted_at = coalesce(deleted_at, now()) WHERE run_id = $1
RETURNING run_id, lifecycle_stage

-- name: restore_run
-- The other half of delete_run.
UPDATE runs SET lifecycle_stage = 'active', deleted_at = NULL WHERE run_id = $1
RETURNING run_id, lifecycle_stage

-- name: garbage
-- Runs and logged models that were deleted so many days ago, and what the runs hold.
SELECT count(*) AS runs,
    (SELECT count(*) FROM logged_models AS m
     WHERE m.lifecycle_stage = 'deleted'
        AND m.updated_at_ms <= extract(epoch FROM now() - make_interval(days => $1)) * 1000
        AND NOT EXISTS (SELECT FROM model_versions AS v WHERE v.model_id = m.model_id)) AS models,
    coalesce(sum((SELECT coalesce(sum(s.points), 0) FROM series AS s WHERE s.run_id = r.run_id)), 0)::bigint AS points
FROM runs AS r
WHERE r.lifecycle_stage = 'deleted' AND r.deleted_at <= now() - make_interval(days => $1)

-- name: garbage_left
-- How many there are.
SELECT (
    SELECT count(*) FROM runs WHERE lifecycle_stage = 'deleted' AND deleted_at <= now() - make_interval(days => $1)
) AS runs, (
    SELECT count(*) FROM logged_models AS m
    WHERE m.lifecycle_stage = 'deleted'
        AND m.updated_at_ms <= extract(epoch FROM now() - make_interval(days => $1)) * 1000
        AND NOT EXISTS (SELECT FROM model_versions AS v WHERE v.model_id = m.model_id)
) AS models

-- name: next_garbage
-- One of them; no other collector takes it meanwhile.
SELECT run_id FROM runs
WHERE lifecycle_stage = 'deleted' AND deleted_at <= now() - make_interval(days => $1)
ORDER BY deleted_at, run_id LIMIT 1
FOR UPDATE SKIP LOCKED

-- name: next_garbage_model
-- A logged model that no version of a registered model is of; no other collector takes it meanwhile.
SELECT model_id FROM logged_models AS m
WHERE m.lifecycle_stage = 'deleted'
    AND m.updated_at_ms <= extract(epoch FROM now() - make_interval(days => $1)) * 1000
    AND NOT EXISTS (SELECT FROM model_versions AS v WHERE v.model_id = m.model_id)
ORDER BY m.updated_at_ms, m.model_id LIMIT 1
FOR UPDATE SKIP LOCKED

-- name: remove_model
-- A logged model whose files are gone, with its params, tags, metrics, and what was still on its way.
WITH gone_uploads AS (DELETE FROM uploads WHERE owner = $1)
DELETE FROM logged_models WHERE model_id = $1

-- name: remove_chunks
-- Some chunks of a run; by their place, as in compact.sql.
DELETE FROM chunks WHERE ctid = ANY (ARRAY(SELECT ctid FROM chunks WHERE run_id = $1 LIMIT $2))

-- name: remove_frames
-- Some frames of a run; by their place, too.
DELETE FROM frames WHERE ctid = ANY (ARRAY(SELECT ctid FROM frames WHERE run_id = $1 LIMIT $2))

-- name: remove_latest
-- The latest values of a run.
DELETE FROM latest WHERE run_id IN (SELECT run_id FROM latest WHERE run_id = $1 LIMIT $2)

-- name: remove_series
-- Some series of a run.
DELETE FROM series WHERE (run_id, series_id) IN (SELECT run_id, series_id FROM series WHERE run_id = $1 LIMIT $2)

-- name: remove_artifacts
-- Some artifacts of a run; their objects are collected once nothing names them.
DELETE FROM artifacts WHERE (owner, path) IN (SELECT owner, path FROM artifacts WHERE owner = $1 LIMIT $2)

-- name: remove_rest
-- What is left of a run once its points are gone.
WITH gone_params AS (DELETE FROM params WHERE run_id = $1),
    gone_conflicts AS (DELETE FROM param_conflicts WHERE run_id = $1),
    gone_tags AS (DELETE FROM tags WHERE run_id = $1),
    gone_datasets AS (DELETE FROM run_datasets WHERE run_id = $1),
    gone_models AS (DELETE FROM run_models WHERE run_id = $1),
    gone_uploads AS (DELETE FROM uploads WHERE owner = $1),
    gone_kept AS (DELETE FROM kept_frames WHERE run_id = $1),
    gone_untidy AS (DELETE FROM untidy_groups WHERE run_id = $1),
    gone_writers AS (DELETE FROM writers WHERE run_id = $1)
DELETE FROM runs WHERE run_id = $1
