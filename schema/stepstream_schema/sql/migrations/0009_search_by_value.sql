-- Searching runs by the value of a param or tag. Values may be longer than an index takes: their beginnings are enough.

DROP INDEX params_by_key;
CREATE INDEX params_by_value ON params (key, left(value, 200), run_id);
CREATE INDEX tags_by_value ON tags (key, left(value, 200), run_id);
