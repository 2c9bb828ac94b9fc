-- name: create_experiment
-- The experiment of that name, made if there is none.
INSERT INTO experiments (name) VALUES ($1) ON CONFLICT DO NOTHING

-- name: experiment_by_name
-- One experiment.
SELECT experiment_id, name, lifecycle_stage, created_at_ms FROM experiments WHERE name = $1

-- name: experiment_by_id
-- One experiment.
SELECT experiment_id, name, lifecycle_stage, created_at_ms FROM experiments WHERE experiment_id = $1

-- name: list_experiments
-- All of them, newest first.
SELECT experiment_id, name, lifecycle_stage, created_at_ms FROM experiments
ORDER BY created_at_ms DESC, experiment_id DESC LIMIT $1

-- name: create_run
-- A run that is announced by a request rather than by a frame; an existing one stays as it is.
INSERT INTO runs (run_id, experiment_id, name, user_id, start_time_ms) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING

-- name: get_run
-- One run.
SELECT r.run_id, r.experiment_id, e.name AS experiment, r.name, r.user_id, r.status, r.start_time_ms, r.end_time_ms,
    r.announced, r.lost, r.lifecycle_stage
FROM runs AS r JOIN experiments AS e USING (experiment_id)
WHERE r.run_id = $1

-- name: list_runs
-- The newest runs of an experiment, or of all when none is given.
SELECT r.run_id, r.experiment_id, e.name AS experiment, r.name, r.user_id, r.status, r.start_time_ms, r.end_time_ms,
    r.announced, r.lost, r.lifecycle_stage
FROM runs AS r JOIN experiments AS e USING (experiment_id)
WHERE $1::bigint IS NULL OR r.experiment_id = $1
ORDER BY r.start_time_ms DESC NULLS LAST, r.run_id LIMIT $2

-- name: run_params
-- The params of a run.
SELECT key, value FROM params WHERE run_id = $1 ORDER BY key

-- name: run_tags
-- The tags of a run.
SELECT key, value FROM tags WHERE run_id = $1 AND value IS NOT NULL ORDER BY key

-- name: run_writers
-- Who has written to a run.
SELECT w.writer, w.rank, w.attempt, w.status, w.mark AS frames,
    (extract(epoch FROM w.seen_at) * 1000)::bigint AS seen_at_ms
FROM writers AS w WHERE w.run_id = $1 ORDER BY w.rank NULLS FIRST, w.attempt, w.writer

-- name: count_param_conflicts
-- How many params were refused.
SELECT count(*) FROM param_conflicts WHERE run_id = $1

-- name: finish_run
-- A request ends the run; a statement of a later time stays.
UPDATE runs SET status = $2, end_time_ms = $3, status_time_ms = $3, status_writer = 0, status_seq = 0, lost = false
WHERE run_id = $1 AND status_time_ms <= $3

-- name: fail_silent_runs
-- Runs whose writers have promised heartbeats and have all been silent for too long, by this server's clock.
UPDATE runs AS r
SET status = 'FAILED', lost = true, end_time_ms = (extract(epoch FROM heard.seen_at) * 1000)::bigint
FROM (
    SELECT w.run_id, max(w.seen_at) AS seen_at, max(w.heartbeat_s) AS heartbeat_s
    FROM writers AS w JOIN runs USING (run_id)
    WHERE runs.status = 'RUNNING'
    GROUP BY w.run_id
) AS heard
WHERE r.run_id = heard.run_id AND r.status = 'RUNNING' AND heard.heartbeat_s > 0
    AND heard.seen_at < clock_timestamp() - make_interval(secs => greatest($1::float8, 4 * heard.heartbeat_s))
RETURNING r.run_id
