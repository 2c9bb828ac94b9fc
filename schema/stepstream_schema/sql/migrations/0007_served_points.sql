-- Points that came by MLflow's protocol: equal ones are one. Their series have a context of their own, and while they are
-- in frames their writers lie above all others.

CREATE OR REPLACE VIEW metric_points (run_id, key, rank, attempt, step, time, value) AS
SELECT s.run_id, s.key, nullif(s.rank, -1), (s.attempt >> 32) || '.' || ((s.attempt >> 16) & 65535) || '.'
    || (s.attempt & 65535), p.step, to_timestamp(p.time_ms / 1000.0), p.value
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
    || (f.attempt & 65535), p.step, to_timestamp(p.time_ms / 1000.0), p.value
FROM frames AS f
CROSS JOIN LATERAL stepstream_frame_points(f.body) AS p
WHERE f.points > 0 AND f.writer < 9223372032559808512
UNION ALL
(
    SELECT f.run_id, p.key, f.rank, (f.attempt >> 32) || '.' || ((f.attempt >> 16) & 65535) || '.'
        || (f.attempt & 65535), p.step, to_timestamp(p.time_ms / 1000.0), p.value
    FROM frames AS f
    CROSS JOIN LATERAL stepstream_frame_points(f.body) AS p
    WHERE f.points > 0 AND f.writer >= 9223372032559808512
    EXCEPT
    SELECT s.run_id, s.key, nullif(s.rank, -1), (s.attempt >> 32) || '.' || ((s.attempt >> 16) & 65535) || '.'
        || (s.attempt & 65535), p.step, to_timestamp(p.time_ms / 1000.0), p.value
    FROM series AS s
    JOIN chunks AS c USING (run_id, series_id)
    CROSS JOIN LATERAL stepstream_chunk_points(c.body) AS p
    WHERE s.context <> ''
);
