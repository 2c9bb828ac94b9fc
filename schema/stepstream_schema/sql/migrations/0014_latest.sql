-- The latest values of a run as one row: a search for a metric reads a row a run, and not one for each rank that has it.

CREATE TABLE latest (
    run_id uuid PRIMARY KEY,
    -- By key, of what is compacted: the last point of the lowest rank's newest attempt. All null for a run that has had
    -- more keys than are kept here, for good: its series say it.
    keys text[] DEFAULT '{}',
    ranks integer[] DEFAULT '{}',
    attempts bigint[] DEFAULT '{}',
    last_steps bigint[] DEFAULT '{}',
    last_times_ms bigint[] DEFAULT '{}',
    lasts double precision[] DEFAULT '{}'
) WITH (fillfactor = 70);
-- Compressed before it is moved out of the row, which a search would have to follow.
ALTER TABLE latest ALTER COLUMN keys SET STORAGE MAIN, ALTER COLUMN ranks SET STORAGE MAIN,
    ALTER COLUMN attempts SET STORAGE MAIN, ALTER COLUMN last_steps SET STORAGE MAIN,
    ALTER COLUMN last_times_ms SET STORAGE MAIN, ALTER COLUMN lasts SET STORAGE MAIN;

-- A server of the version before would move series and not this. By the new name its passes of compaction fail, and lose
-- nothing, until it is replaced. What is there already is filled in by the next migration: nobody waits for that.
ALTER TABLE series RENAME COLUMN loose TO loose_chunks;
