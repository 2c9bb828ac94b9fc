-- Which chunks of a run still have their points, and since when: only the runs of experiments whose points age are looked
-- at. By age alone, what other experiments keep for ever came first, each time. Who writes chunks waits while it is made,
-- who reads them does not.

CREATE INDEX chunks_raw ON chunks (run_id, written_at) WHERE body IS NOT NULL;
