-- Searching runs by the value of a param without opening the rows: an index on an expression cannot answer alone. A longer
-- value is looked for from each run. The new index first, so that nobody who reads waits while it is made.

CREATE INDEX params_of_value ON params (key, value, run_id) WHERE length(value) <= 200;
DROP INDEX params_by_value;
