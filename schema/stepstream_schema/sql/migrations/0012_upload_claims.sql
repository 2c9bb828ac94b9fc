-- An upload is completed by one request at a time, and remembered for a day: whoever completes it again is told the same.

ALTER TABLE uploads
    -- Base64; what the store of a file that is sent whole will have seen. Empty where it checks something else.
    ADD COLUMN md5 text NOT NULL DEFAULT '',
    -- How many parts it will have, where that was said when it began.
    ADD COLUMN part_count integer,
    -- The request that has the turn, and when it last said so.
    ADD COLUMN claim uuid,
    ADD COLUMN claimed_at timestamptz,
    -- Null while it is under way.
    ADD COLUMN finished_at timestamptz;
CREATE INDEX uploads_finished ON uploads (finished_at) WHERE finished_at IS NOT NULL;
