-- Compaction: frames become chunks. A group is what shares series: one rank and attempt of one run.

-- name: backlog
-- What waits, by group. The size of a body is in its pointer: none is opened for this.
SELECT run_id, rank, attempt, writer >= 9223372032559808512 AS served, array_agg(DISTINCT writer) AS writers, count(*) AS frames, sum(points)::bigint AS points,
    sum(octet_length(body))::bigint AS bytes,
    extract(epoch FROM clock_timestamp() - min(received_at))::float8 AS age_s
FROM frames
GROUP BY run_id, rank, attempt, writer >= 9223372032559808512

-- name: try_lock_group
-- Whether this transaction may compact the group; no other does until it ends.
SELECT pg_try_advisory_xact_lock(hashtextextended($1::uuid::text || '/' || $2::integer || '/' || $3::bigint, 0)) AS ok

-- name: take_frames
-- The oldest frames of the group, up to so many points; they are gone when this transaction commits. By their place in the
-- table: of a run that had few frames when the table was last analyzed PostgreSQL would join each with each.
WITH waiting AS (
    SELECT ctid, sum(points) OVER (ORDER BY received_at, writer, seq) - points AS before
    FROM frames
    WHERE run_id = $1 AND writer = ANY ($2::bigint[]) AND rank IS NOT DISTINCT FROM $3::integer AND attempt = $4
    ORDER BY received_at, writer, seq
    LIMIT $6
)
DELETE FROM frames WHERE ctid = ANY (ARRAY(SELECT ctid FROM waiting WHERE before < $5))
RETURNING writer, seq, received_at, body

-- name: keep_frames
-- Frames that hold records which this version does not know.
INSERT INTO kept_frames (run_id, writer, seq, body)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bytea[])
ON CONFLICT DO NOTHING

-- name: lock_series_of_run
-- Numbers of series are given out one transaction at a time.
SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text, 1))

-- name: find_series
-- The numbers of series by name.
SELECT key, series_id FROM series
WHERE run_id = $1 AND rank = $2 AND attempt = $3 AND context = $5 AND key = ANY ($4::text[])

-- name: last_series
-- The largest number of a series of the run.
SELECT coalesce(max(series_id), 0) FROM series WHERE run_id = $1

-- name: insert_series
-- New series with the summaries of their first chunks: made empty and then folded they would be written twice.
INSERT INTO series (run_id, rank, attempt, context, key, series_id, first_step, first_time_ms, last_step, last_time_ms,
    min_step, min_time_ms, max_step, max_time_ms, points, nans, pos_infs, neg_infs, first_value, last_value, min_value,
    max_value, value_sum, loose_chunks)
SELECT $1::uuid, $2::integer, $3::bigint, $4::text, d.*
FROM unnest($5::text[], $6::integer[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[],
    $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[],
    $19::float8[], $20::float8[], $21::float8[], $22::float8[], $23::float8[], $24::integer[]) AS d

-- name: fold_series
-- The summaries after new chunks. NaN counts as smaller than every number where the last value is sought, and as no
-- number at all for minimum and maximum. Says how many there were: a number alone may be another series' since the run was
-- removed and came again. No column of an index may change here: see migration 13.
WITH folded AS (UPDATE series AS s SET
    points = s.points + d.points, nans = s.nans + d.nans, pos_infs = s.pos_infs + d.pos_infs,
    neg_infs = s.neg_infs + d.neg_infs,
    -- PostgreSQL refuses to add beyond the range of float64: a sum that comes near it is infinite.
    value_sum = CASE
        WHEN abs(s.value_sum) < 8e307 AND abs(d.value_sum) < 8e307 OR sign(s.value_sum) <> sign(d.value_sum)
        THEN s.value_sum + d.value_sum
        ELSE sign(s.value_sum) * 'Infinity'::float8 END,
    (first_step, first_time_ms, first_value) = (
        SELECT x.step, x.time_ms, x.value FROM (VALUES (s.first_step, s.first_time_ms, s.first_value),
            (d.first_step, d.first_time_ms, d.first_value)) AS x (step, time_ms, value)
        ORDER BY x.step, x.time_ms, x.value = 'NaN' DESC, x.value LIMIT 1),
    (last_step, last_time_ms, last_value) = (
        SELECT x.step, x.time_ms, x.value FROM (VALUES (s.last_step, s.last_time_ms, s.last_value),
            (d.last_step, d.last_time_ms, d.last_value)) AS x (step, time_ms, value)
        ORDER BY x.step DESC NULLS LAST, x.time_ms DESC, x.value = 'NaN', x.value DESC LIMIT 1),
    (min_step, min_time_ms, min_value) = (
        SELECT x.step, x.time_ms, x.value FROM (VALUES (s.min_step, s.min_time_ms, s.min_value),
            (d.min_step, d.min_time_ms, d.min_value)) AS x (step, time_ms, value)
        ORDER BY x.value, x.step, x.time_ms LIMIT 1),
    (max_step, max_time_ms, max_value) = (
        SELECT x.step, x.time_ms, x.value FROM (VALUES (s.max_step, s.max_time_ms, s.max_value),
            (d.max_step, d.max_time_ms, d.max_value)) AS x (step, time_ms, value)
        ORDER BY x.value = 'NaN', x.value DESC NULLS LAST, x.step, x.time_ms LIMIT 1),
    loose_chunks = s.loose_chunks + d.loose
        + CASE WHEN (d.first_step, d.first_time_ms) <= (s.last_step, s.last_time_ms) THEN $5::integer ELSE 0 END
FROM unnest($6::text[], $7::integer[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[],
    $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[],
    $20::float8[], $21::float8[], $22::float8[], $23::float8[], $24::float8[], $25::integer[])
    AS d (key, series_id, first_step, first_time_ms, last_step, last_time_ms, min_step, min_time_ms, max_step, max_time_ms,
        points, nans, pos_infs, neg_infs, first_value, last_value, min_value, max_value, value_sum, loose)
WHERE s.run_id = $1 AND s.series_id = d.series_id
    -- Not in words that the index of names has: without statistics it would be looked through for each series.
    AND s.key || '' = d.key AND s.rank + 0 = $2 AND s.attempt + 0 = $3 AND s.context || '' = $4::text
RETURNING s.loose_chunks
), noted AS (
    INSERT INTO untidy_groups AS g (run_id, rank, attempt, loose)
    SELECT $1, $2::integer, $3::bigint, max(loose_chunks) FROM folded HAVING max(loose_chunks) > 1
    ON CONFLICT (run_id, rank, attempt) DO UPDATE SET loose = excluded.loose WHERE g.loose < excluded.loose
)
SELECT count(*) FROM folded

-- name: open_latest
-- A place for the latest values of a run.
INSERT INTO latest (run_id) VALUES ($1) ON CONFLICT DO NOTHING

-- name: fold_latest
-- The latest values of a run after a pass over one of its groups, which holds the group's lock. Of hundreds of ranks most
-- change nothing, and wait for nobody: each key is said by the lowest.
UPDATE latest AS l SET (keys, ranks, attempts, last_steps, last_times_ms, lasts) = (
    SELECT CASE WHEN count(*) <= $4 THEN array_agg(key ORDER BY key) END,
        CASE WHEN count(*) <= $4 THEN array_agg(rank ORDER BY key) END,
        CASE WHEN count(*) <= $4 THEN array_agg(attempt ORDER BY key) END,
        CASE WHEN count(*) <= $4 THEN array_agg(step ORDER BY key) END,
        CASE WHEN count(*) <= $4 THEN array_agg(time_ms ORDER BY key) END,
        CASE WHEN count(*) <= $4 THEN array_agg(value ORDER BY key) END
    FROM (
        SELECT DISTINCT ON (key) key, rank, attempt, step, time_ms, value
        FROM (
            SELECT x.key, x.rank, x.attempt, x.step, x.time_ms, x.value
            FROM unnest(l.keys, l.ranks, l.attempts, l.last_steps, l.last_times_ms, l.lasts)
                AS x (key, rank, attempt, step, time_ms, value)
            UNION ALL
            SELECT s.key, s.rank, s.attempt, s.last_step, s.last_time_ms, s.last_value
            FROM series AS s WHERE s.run_id = $1 AND s.rank = $2 AND s.attempt = $3 AND s.points > 0
        ) AS part
        ORDER BY key, rank, attempt DESC, step DESC, time_ms DESC, value = 'NaN', value DESC
    ) AS each
)
WHERE l.run_id = $1 AND l.keys IS NOT NULL AND (
    -- No EXISTS: PostgreSQL would make a join of it, and test one row of series again where it has waited for another pass.
    SELECT bool_or(coalesce(l.ranks[array_position(l.keys, s.key)] >= s.rank, true))
    FROM series AS s WHERE s.run_id = $1 AND s.rank = $2 AND s.attempt = $3 AND s.points > 0)

-- name: untidy
-- Groups with series whose chunks are worth merging: many loose ones, or any once the run has ended.
SELECT g.run_id, nullif(g.rank, -1) AS rank, g.attempt
FROM untidy_groups AS g JOIN runs AS r USING (run_id)
WHERE g.loose >= $1 OR r.status <> 'RUNNING'
LIMIT 100

-- name: untidy_series
-- The untidy series of a group.
SELECT s.series_id
FROM series AS s JOIN runs AS r USING (run_id)
WHERE s.run_id = $1 AND s.rank = $2 AND s.attempt = $3 AND s.loose_chunks > 1 AND (s.loose_chunks >= $4 OR r.status <> 'RUNNING')
ORDER BY s.series_id LIMIT $5

-- name: overlapping_chunks
-- Chunks of series that hold something between two places, both included, of each series its own. Where what comes lies
-- beyond all that is there, as in a training, no chunk is looked at.
SELECT s.key, c.body
FROM unnest($5::text[], $6::integer[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[])
    AS w (key, series_id, first_step, first_time_ms, last_step, last_time_ms)
JOIN series AS s ON s.run_id = $1 AND s.series_id = w.series_id
    AND s.key = w.key AND s.rank = $2::integer AND s.attempt = $3::bigint AND s.context = $4::text
    AND (s.last_step, s.last_time_ms) >= (w.first_step, w.first_time_ms)
JOIN chunks AS c ON c.run_id = $1 AND c.series_id = w.series_id AND c.body IS NOT NULL
    AND c.first_step <= w.last_step AND (c.first_step, c.first_time_ms) <= (w.last_step, w.last_time_ms)
    AND (c.last_step, c.last_time_ms) >= (w.first_step, w.first_time_ms)

-- name: chunk_bounds
-- Where the chunks of these series lie, in order; of a long one not those that are neither small, nor beside a small one,
-- nor reach into another.
SELECT series_id, chunk_id, first_step, first_time_ms, last_step, last_time_ms, points
FROM (
    SELECT series_id, chunk_id, first_step, first_time_ms, last_step, last_time_ms, points,
        least(points, lag(points) OVER own, lead(points) OVER own) < $3::bigint
        OR first_step <= max(last_step) OVER (own ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        OR lead(first_step) OVER own <= max(last_step) OVER (own ROWS UNBOUNDED PRECEDING) AS is_near
    FROM chunks
    WHERE run_id = $1 AND series_id = ANY ($2::integer[]) AND body IS NOT NULL
    WINDOW own AS (PARTITION BY series_id ORDER BY first_step, first_time_ms, chunk_id)
) AS c
WHERE is_near
ORDER BY series_id, first_step, first_time_ms, chunk_id

-- name: take_chunks
-- The points of chunks that are about to be merged; they are gone when this transaction commits.
DELETE FROM chunks
WHERE run_id = $1 AND (series_id, first_step, chunk_id) IN (
    SELECT * FROM unnest($2::integer[], $3::bigint[], $4::bigint[]))
RETURNING series_id, chunk_id, body

-- name: set_loose
-- What is left to tidy.
UPDATE series AS s SET loose_chunks = said.loose
FROM unnest($2::integer[], $3::integer[]) AS said (series_id, loose)
WHERE s.run_id = $1 AND s.series_id = said.series_id

-- name: forget_untidy
-- What is known of a group that is looked at anew.
DELETE FROM untidy_groups WHERE run_id = $1 AND rank = $2 AND attempt = $3

-- name: note_untidy
-- What the group's series say.
INSERT INTO untidy_groups (run_id, rank, attempt, loose)
SELECT run_id, rank, attempt, max(loose_chunks) FROM series
WHERE run_id = $1 AND rank = $2 AND attempt = $3 AND loose_chunks > 1
GROUP BY run_id, rank, attempt
