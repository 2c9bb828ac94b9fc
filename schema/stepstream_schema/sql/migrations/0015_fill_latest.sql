-- The latest values of what was compacted before. Since migration 14 is in force nobody folds series meanwhile.

INSERT INTO latest (run_id, keys, ranks, attempts, last_steps, last_times_ms, lasts)
SELECT run_id,
    CASE WHEN count(*) <= 128 THEN array_agg(key ORDER BY key) END,
    CASE WHEN count(*) <= 128 THEN array_agg(rank ORDER BY key) END,
    CASE WHEN count(*) <= 128 THEN array_agg(attempt ORDER BY key) END,
    CASE WHEN count(*) <= 128 THEN array_agg(last_step ORDER BY key) END,
    CASE WHEN count(*) <= 128 THEN array_agg(last_time_ms ORDER BY key) END,
    CASE WHEN count(*) <= 128 THEN array_agg(last_value ORDER BY key) END
FROM (
    SELECT DISTINCT ON (run_id, key) run_id, key, rank, attempt, last_step, last_time_ms, last_value
    FROM series WHERE points > 0
    ORDER BY run_id, key, rank, attempt DESC, last_step DESC, last_time_ms DESC, last_value = 'NaN', last_value DESC
) AS each
GROUP BY run_id;
