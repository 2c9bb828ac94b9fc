-- Points by requests are appended by one COPY, whose WHERE asks this of every row.

-- True, or an error that takes the whole COPY back: a run that is not there, deleted or given up needs a closer look.
CREATE FUNCTION takes_points(wanted uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF EXISTS (SELECT FROM runs WHERE run_id = wanted AND lifecycle_stage = 'active' AND NOT lost) THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION 'run % takes no points as it is', wanted USING ERRCODE = 'SS001';
END
$$;
