-- Which series are loose is no longer indexed: a value of an index that changes with every fold makes PostgreSQL write the
-- row into all indexes of the table again, and the rows of a running job are folded every few seconds.

-- One row for each group, which is what shares a rank and attempt of a run, that has a series with loose > 1.
CREATE TABLE untidy_groups (
    run_id uuid NOT NULL,
    -- As in series: -1 where the writer has no rank.
    rank integer NOT NULL,
    attempt bigint NOT NULL,
    -- The largest of its series.
    loose integer NOT NULL,
    PRIMARY KEY (run_id, rank, attempt)
);
-- A server of the version before may be folding still.
LOCK TABLE series IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO untidy_groups (run_id, rank, attempt, loose)
SELECT run_id, rank, attempt, max(loose) FROM series WHERE loose > 1 GROUP BY run_id, rank, attempt;
DROP INDEX series_untidy;
CREATE INDEX series_of_group ON series (run_id, rank, attempt);
