-- Searching runs by the value of a param or tag, without opening the rows: an index on an expression cannot answer alone.
-- Longer values do not fit into an index and are looked for from each run.

DROP INDEX params_by_value;
DROP INDEX tags_by_value;
CREATE INDEX params_by_value ON params (key, value, run_id) WHERE length(value) <= 200;
CREATE INDEX tags_by_value ON tags (key, value, run_id) WHERE length(value) <= 200;
