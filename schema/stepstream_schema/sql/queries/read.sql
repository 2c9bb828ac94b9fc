-- name: series
-- The series of a run with their summaries, from the frames' packed arrays.
SELECT s.key, f.rank, f.attempt,
    sum(s.count)::bigint AS count, min(s.min) AS min,
    -- PostgreSQL orders NaN above all numbers: a NaN here means only that this frame held nothing else.
    max(s.max) FILTER (WHERE s.max <> 'NaN'::float8) AS max,
    (array_agg(s.last ORDER BY s.last_step DESC, s.last_time_ms DESC,
        CASE WHEN s.last = 'NaN'::float8 THEN '-Infinity'::float8 ELSE s.last END DESC))[1] AS last,
    max(s.last_step) AS last_step,
    (array_agg(s.last_time_ms ORDER BY s.last_step DESC, s.last_time_ms DESC))[1] AS last_time_ms
FROM frames AS f,
    unnest(f.keys, f.counts, f.last_steps, f.last_times_ms, f.lasts, f.mins, f.maxs)
        AS s (key, count, last_step, last_time_ms, last, min, max)
WHERE f.run_id = $1
GROUP BY s.key, f.rank, f.attempt
ORDER BY s.key, f.rank NULLS FIRST, f.attempt

-- name: frames_of_key
-- The frames of a run that hold a key, of one rank and attempt if they are given.
SELECT f.rank, f.attempt, f.body
FROM frames AS f
WHERE f.run_id = $1 AND $2 = ANY (f.keys)
    AND ($3::boolean IS NOT TRUE OR f.rank IS NOT DISTINCT FROM $4::integer)
    AND ($5::bigint IS NULL OR f.attempt = $5)
ORDER BY f.writer, f.seq

-- name: run_exists
-- Whether the run is known.
SELECT 1 FROM runs WHERE run_id = $1
