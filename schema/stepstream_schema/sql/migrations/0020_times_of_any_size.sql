-- The view metric_points shows points whose time is beyond what a timestamp, or a reader of it, knows: a time is any 64-bit
-- number of milliseconds, and one of them that cannot be said must not make a question about all others fail.

-- A time as a timestamp; before the year 1 the year's beginning, after 9999 its end. PostgreSQL knows some more, but most
-- programs that ask it do not.
CREATE FUNCTION stepstream_time(time_ms bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_timestamp(least(greatest(time_ms, -62135596800000), 253402300799000) / 1000.0)
$$;

CREATE OR REPLACE VIEW metric_points (run_id, key, rank, attempt, step, time, value) AS
SELECT s.run_id, s.key, nullif(s.rank, -1), (s.attempt >> 32) || '.' || ((s.attempt >> 16) & 65535) || '.'
    || (s.attempt & 65535), p.step, stepstream_time(p.time_ms), p.value
FROM series AS s
JOIN chunks AS c USING (run_id, series_id)
CROSS JOIN LATERAL (
    SELECT step, time_ms, value FROM stepstream_chunk_points(c.body)
    UNION ALL
    SELECT DISTINCT * FROM (VALUES (c.first_step, c.first_time_ms, c.first_value), (c.last_step, c.last_time_ms, c.last_value),
        (c.min_step, c.min_time_ms, c.min_value), (c.max_step, c.max_time_ms, c.max_value)) AS kept
    WHERE c.body IS NULL
) AS p
UNION ALL
SELECT f.run_id, p.key, f.rank, (f.attempt >> 32) || '.' || ((f.attempt >> 16) & 65535) || '.'
    || (f.attempt & 65535), p.step, stepstream_time(p.time_ms), p.value
FROM frames AS f
CROSS JOIN LATERAL stepstream_frame_points(f.body) AS p
WHERE f.points > 0 AND f.writer < 9223372032559808512
UNION ALL
-- Which are equal is decided by the times themselves.
SELECT new.run_id, new.key, new.rank, new.attempt, new.step, stepstream_time(new.time_ms), new.value
FROM (
    SELECT f.run_id, p.key, f.rank, (f.attempt >> 32) || '.' || ((f.attempt >> 16) & 65535) || '.'
        || (f.attempt & 65535), p.step, p.time_ms, p.value
    FROM frames AS f
    CROSS JOIN LATERAL stepstream_frame_points(f.body) AS p
    WHERE f.points > 0 AND f.writer >= 9223372032559808512
    EXCEPT
    SELECT s.run_id, s.key, nullif(s.rank, -1), (s.attempt >> 32) || '.' || ((s.attempt >> 16) & 65535) || '.'
        || (s.attempt & 65535), p.step, p.time_ms, p.value
    FROM series AS s
    JOIN chunks AS c USING (run_id, series_id)
    CROSS JOIN LATERAL stepstream_chunk_points(c.body) AS p
    WHERE s.context <> ''
) AS new (run_id, key, rank, attempt, step, time_ms, value);
