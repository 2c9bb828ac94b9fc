-- What 0018 has replaced. By itself: it wants the table to itself, for a moment, and holds no other lock while it waits for
-- that, or it and a pass of compaction would wait for each other; and an index that is made need not be made again.

DROP INDEX chunks_by_age;
