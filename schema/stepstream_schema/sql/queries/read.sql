-- Reading. What is in frames and what is in chunks is read in one snapshot, so that a pass of compaction in between
-- neither hides a point nor shows it twice.

-- name: series
-- The series of a run with their summaries: of the chunks from their own rows, of the frames from the packed arrays.
SELECT key, nullif(rank, -1) AS rank, attempt,
    sum(count)::bigint AS count, min(min) AS min,
    -- PostgreSQL orders NaN above all numbers: a NaN here means only that this part held nothing else.
    max(max) FILTER (WHERE max <> 'NaN'::float8) AS max,
    (array_agg(last ORDER BY last_step DESC, last_time_ms DESC,
        CASE WHEN last = 'NaN'::float8 THEN '-Infinity'::float8 ELSE last END DESC))[1] AS last,
    max(last_step) AS last_step,
    (array_agg(last_time_ms ORDER BY last_step DESC, last_time_ms DESC))[1] AS last_time_ms
FROM (
    SELECT key, rank, attempt, points AS count, last_step, last_time_ms, last_value AS last, min_value AS min,
        max_value AS max
    FROM series WHERE run_id = $1 AND points > 0
    UNION ALL
    SELECT s.key, coalesce(f.rank, -1), f.attempt, s.count, s.last_step, s.last_time_ms, s.last, s.min, s.max
    FROM frames AS f,
        unnest(f.keys, f.counts, f.last_steps, f.last_times_ms, f.lasts, f.mins, f.maxs)
            AS s (key, count, last_step, last_time_ms, last, min, max)
    WHERE f.run_id = $1
) AS parts
GROUP BY key, rank, attempt
ORDER BY key, rank, attempt

-- name: known_runs
-- Which of these runs are known.
SELECT run_id FROM runs WHERE run_id = ANY ($1::uuid[])

-- name: wanted_frames
-- Frames of these runs that hold one of these keys.
SELECT f.run_id, coalesce(f.rank, -1) AS rank, f.attempt, f.writer >= 9223372032559808512 AS served, f.body
FROM frames AS f
WHERE f.run_id = ANY ($1::uuid[]) AND f.keys && $2::text[]
ORDER BY f.run_id, f.writer, f.seq

-- name: wanted_series
-- The series that were asked for: place is the question's number from 1. No rank or attempt means all of them.
SELECT w.place, s.run_id, s.series_id, s.rank, s.attempt, s.context <> '' AS served, s.first_step, s.last_step
FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::bigint[]) WITH ORDINALITY
    AS w (run_id, key, rank, attempt, place)
JOIN series AS s ON s.run_id = w.run_id AND s.key = w.key AND s.points > 0
    AND (w.rank IS NULL OR s.rank = w.rank) AND (w.attempt IS NULL OR s.attempt = w.attempt)

-- name: wanted_chunks
-- What is known of the chunks of these series between two steps, both included, without opening any.
SELECT c.run_id, c.series_id, c.chunk_id, c.stride, c.body IS NULL AS summary_only,
    c.first_step, c.first_time_ms, c.last_step, c.last_time_ms, c.min_step, c.min_time_ms, c.max_step, c.max_time_ms,
    c.points, c.nans, c.pos_infs, c.neg_infs, c.first_value, c.last_value, c.min_value, c.max_value, c.value_sum
FROM unnest($1::uuid[], $2::integer[]) AS w (run_id, series_id)
JOIN chunks AS c USING (run_id, series_id)
WHERE c.first_step <= $4 AND c.last_step >= $3
ORDER BY c.run_id, c.series_id, c.first_step, c.first_time_ms, c.chunk_id

-- name: chunk_bodies
-- The points of these chunks; where they are gone with age, their summary.
SELECT c.chunk_id, c.body, CASE WHEN c.body IS NULL THEN c.buckets END AS buckets
FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[]) AS w (run_id, series_id, first_step, chunk_id)
JOIN chunks AS c USING (run_id, series_id, first_step, chunk_id)

-- name: chunk_buckets
-- The summaries of these chunks, a bucket for every 128 points.
SELECT c.chunk_id, c.buckets
FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[]) AS w (run_id, series_id, first_step, chunk_id)
JOIN chunks AS c USING (run_id, series_id, first_step, chunk_id)
