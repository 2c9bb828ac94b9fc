-- The manifest of artifacts, the objects behind it, and uploads under way.

-- name: secret
-- What all servers of this database sign with.
SELECT value FROM secrets WHERE name = 'artifact urls'

-- name: place_run
-- Artifacts may arrive before the first frame of their run.
INSERT INTO runs (run_id, experiment_id, announced) VALUES ($1, 0, false) ON CONFLICT DO NOTHING

-- name: run_stage
-- Whether artifacts may be added.
SELECT lifecycle_stage FROM runs WHERE run_id = $1

-- name: reuse_objects
-- Objects that are stored already, locked against collection until the manifest names them.
SELECT object_id, size, sha256 FROM objects
WHERE (sha256, size) IN (SELECT * FROM unnest($1::bytea[], $2::bigint[]))
ORDER BY object_id
FOR KEY SHARE

-- name: list_in_manifest
-- Files that can be fetched; of one path the one that was logged last.
INSERT INTO artifacts (owner, path, object_id, size, content_type, logged_at_ms, rank)
SELECT DISTINCT ON (owner, path) owner, path, object_id, size, content_type, logged_at_ms, rank
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::text[], $6::bigint[], $7::integer[])
    AS said (owner, path, object_id, size, content_type, logged_at_ms, rank)
ORDER BY owner, path, logged_at_ms DESC
ON CONFLICT (owner, path) DO UPDATE
SET object_id = excluded.object_id, size = excluded.size, content_type = excluded.content_type,
    logged_at_ms = excluded.logged_at_ms, rank = excluded.rank
WHERE excluded.logged_at_ms >= artifacts.logged_at_ms

-- name: open_uploads
-- Uploads in parts of the same files that an earlier attempt has begun; what was said last is what will be listed.
UPDATE uploads AS u SET touched_at = clock_timestamp(), logged_at_ms = greatest(u.logged_at_ms, said.logged_at_ms),
    content_type = CASE WHEN said.logged_at_ms >= u.logged_at_ms THEN said.content_type ELSE u.content_type END,
    rank = CASE WHEN said.logged_at_ms >= u.logged_at_ms THEN said.rank ELSE u.rank END
FROM unnest($2::text[], $3::bigint[], $4::bytea[], $5::bigint[], $6::text[], $7::integer[])
    AS said (path, size, sha256, logged_at_ms, content_type, rank)
WHERE u.owner = $1 AND u.path = said.path AND u.size = said.size AND u.sha256 = said.sha256
    AND u.parts_token IS NOT NULL AND u.finished_at IS NULL
RETURNING u.upload_id, u.path, u.size, u.sha256, u.parts_token, u.part_bytes

-- name: begin_uploads
-- What is announced and not yet in the store; some of what was finished long ago is forgotten.
WITH forgotten AS (
    DELETE FROM uploads WHERE upload_id IN (
        SELECT upload_id FROM uploads WHERE finished_at <= now() - make_interval(secs => $13)
        ORDER BY finished_at LIMIT $14 FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO uploads (upload_id, owner, path, size, sha256, content_type, logged_at_ms, rank, parts_token, part_bytes,
    md5, part_count)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::bytea[], $6::text[], $7::bigint[],
    $8::integer[], $9::text[], $10::bigint[], $11::text[], $12::integer[])

-- name: touch_upload
-- An upload under way.
UPDATE uploads SET touched_at = clock_timestamp() WHERE upload_id = $1 AND finished_at IS NULL
RETURNING upload_id, owner, path, size, sha256, content_type, logged_at_ms, rank, parts_token, part_bytes, md5,
    part_count

-- name: claim_upload
-- An upload that is to be completed, and whether it is this request's turn: nobody has it, or has let it lapse.
UPDATE uploads
SET claim = CASE WHEN claimed_at > now() - make_interval(secs => $3) AND claim IS NOT NULL THEN claim ELSE $2 END,
    claimed_at = CASE WHEN claimed_at > now() - make_interval(secs => $3) AND claim IS NOT NULL
        THEN claimed_at ELSE clock_timestamp() END,
    touched_at = clock_timestamp()
WHERE upload_id = $1
RETURNING upload_id, owner, path, size, sha256, content_type, logged_at_ms, rank, parts_token, part_bytes, md5,
    part_count, claim = $2 AS is_mine, finished_at IS NOT NULL AS is_finished

-- name: renew_claim
-- Still at it.
UPDATE uploads SET claimed_at = clock_timestamp(), touched_at = clock_timestamp() WHERE upload_id = $1 AND claim = $2

-- name: release_claim
-- It was not completed; the next one may try.
UPDATE uploads SET claim = NULL WHERE upload_id = $1 AND claim = $2

-- name: is_finished
-- Whether an upload was completed not long ago.
SELECT FROM uploads WHERE upload_id = $1 AND finished_at IS NOT NULL

-- name: finish_upload
-- Complete: of all who try only one is told so, and what was said of it last.
UPDATE uploads SET finished_at = clock_timestamp(), claim = NULL WHERE upload_id = $1 AND finished_at IS NULL
RETURNING logged_at_ms, content_type, rank

-- name: end_upload
-- Given up, unless it was completed; whoever is told its token removes what has arrived.
DELETE FROM uploads WHERE upload_id = $1 AND finished_at IS NULL RETURNING upload_id, parts_token

-- name: store_object
-- A new object; one of the same bytes may have come first.
INSERT INTO objects (object_id, size, sha256) VALUES ($1, $2, $3)
ON CONFLICT (sha256, size) WHERE sha256 IS NOT NULL DO NOTHING RETURNING object_id

-- name: same_object
-- The object of these bytes, locked against collection.
SELECT object_id FROM objects WHERE sha256 = $1 AND size = $2 FOR KEY SHARE

-- name: children
-- What lies directly in a directory, after a name: files, and directories with the sum of what they hold. Both may have
-- one name, where they were stored at the same moment; the directory comes after the file.
SELECT name, is_file, sum(size)::bigint AS size, count(*) AS files,
    max(content_type) AS content_type, max(logged_at_ms) AS logged_at_ms, max(rank) AS rank, max(sha256) AS sha256
FROM (
    SELECT split_part(substr(a.path, length($2) + 1), '/', 1) COLLATE "C" AS name,
        position('/' IN substr(a.path, length($2) + 1)) = 0 AS is_file,
        a.size, a.content_type, a.logged_at_ms, a.rank, encode(o.sha256, 'hex') AS sha256
    FROM artifacts AS a LEFT JOIN objects AS o USING (object_id)
    WHERE a.owner = $1 AND starts_with(a.path, $2) AND a.path > $2
) AS entry
WHERE (name, NOT is_file) > (rtrim($3, '/') COLLATE "C", $3 LIKE '%/')
GROUP BY name, is_file ORDER BY name, is_file DESC LIMIT $4

-- name: tree
-- Every file below a directory, or the file itself, after a path.
SELECT a.path, a.size, a.content_type, a.logged_at_ms, a.rank, encode(o.sha256, 'hex') AS sha256
FROM artifacts AS a LEFT JOIN objects AS o USING (object_id)
WHERE a.owner = $1 AND a.path > $3 COLLATE "C" AND ($2 = '' OR a.path = $2 OR starts_with(a.path, $2 || '/'))
ORDER BY a.path LIMIT $4

-- name: files
-- Single files by their paths.
SELECT a.path, a.object_id, a.size, a.content_type, encode(o.sha256, 'hex') AS sha256
FROM artifacts AS a LEFT JOIN objects AS o USING (object_id)
WHERE a.owner = $1 AND a.path = ANY($2::text[])

-- name: in_the_way
-- Those of the directories $2, and of the paths $3, that are files; and for each path that is a directory, a file in it.
SELECT path AS file, NULL AS directory FROM artifacts WHERE owner = $1 AND path = ANY($2::text[] || $3::text[])
UNION ALL
SELECT below.path, said.path
FROM unnest($3::text[]) AS said (path) CROSS JOIN LATERAL (
    SELECT a.path FROM artifacts AS a
    WHERE a.owner = $1 AND a.path > said.path || '/' COLLATE "C" AND a.path < said.path || '0' COLLATE "C"
    LIMIT 1
) AS below

-- name: remove
-- Files are no longer listed; their objects are collected once nothing names them.
DELETE FROM artifacts WHERE owner = $1 AND ($2 = '' OR path = $2 OR starts_with(path, $2 || '/'))

-- name: end_stale_uploads
-- Some uploads that nobody has touched for so long are given up; whoever is told removes what has arrived.
DELETE FROM uploads
WHERE upload_id IN (
    SELECT upload_id FROM uploads WHERE touched_at <= now() - make_interval(secs => $1) AND finished_at IS NULL
    ORDER BY touched_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING upload_id, parts_token

-- name: count_stale_uploads
-- How many there are.
SELECT count(*) AS uploads FROM uploads
WHERE touched_at <= now() - make_interval(secs => $1) AND finished_at IS NULL

-- name: next_objects
-- Some objects in the order of their ids, and which of them no tree names.
SELECT object_id, size, stored_at <= now() - make_interval(secs => $1)
    AND NOT EXISTS (SELECT FROM artifacts AS a WHERE a.object_id = o.object_id) AS is_garbage
FROM objects AS o
WHERE object_id > $2
ORDER BY object_id LIMIT $3

-- name: lock_objects
-- Whoever would use one of them again waits, and then finds it gone.
SELECT object_id FROM objects WHERE object_id = ANY($1::uuid[]) FOR UPDATE SKIP LOCKED

-- name: forget_objects
-- Those that are still not named now that they are locked.
DELETE FROM objects AS o
WHERE object_id = ANY($1::uuid[]) AND NOT EXISTS (SELECT FROM artifacts AS a WHERE a.object_id = o.object_id)
RETURNING object_id, size

-- name: known_keys
-- Which of these ids belong to an object or to an upload under way.
SELECT object_id FROM objects WHERE object_id = ANY($1::uuid[])
UNION SELECT upload_id FROM uploads WHERE upload_id = ANY($1::uuid[]) AND finished_at IS NULL

-- name: under_way
-- Which of these ids belong to an upload under way.
SELECT upload_id FROM uploads WHERE upload_id = ANY($1::uuid[]) AND finished_at IS NULL
