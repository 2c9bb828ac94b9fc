-- Searching and ordering runs by the latest value of a metric.
CREATE INDEX series_by_key ON series (key, run_id);
CREATE INDEX params_by_key ON params (key, run_id);
