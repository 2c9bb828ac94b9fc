-- Which chunks of a run still have their points, and since when: only the runs of experiments whose points age are looked
-- at. By age alone, what other experiments keep for ever came first, each time. The new index first, so that nobody who
-- reads waits while it is made.

CREATE INDEX chunks_raw ON chunks (run_id, written_at) WHERE body IS NOT NULL;
DROP INDEX chunks_by_age;
