-- Searching runs by the value of a param without opening the rows: an index on an expression cannot answer alone. Every
-- other test of a param begins at its key. The new indexes first, so that nobody who reads waits while they are made.

CREATE INDEX params_of_value ON params (key, value, run_id) WHERE length(value) <= 200;
CREATE INDEX params_by_key ON params (key, run_id);
DROP INDEX params_by_value;
