-- Searching runs by the value of a tag without opening the rows: an index on an expression cannot answer alone. Every
-- other test of a tag begins at its key. The new indexes first, so that nobody who reads waits while they are made.

CREATE INDEX tags_of_value ON tags (key, value, run_id) WHERE length(value) <= 200;
CREATE INDEX tags_by_key ON tags (key, run_id);
DROP INDEX tags_by_value;
