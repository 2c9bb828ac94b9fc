-- The model registry. Whatever changes a model locks its row first: versions are numbered, and stages moved, one at a time.

-- name: create_model
-- A new model; nothing when the name is taken.
INSERT INTO registered_models (name, description, created_at_ms, updated_at_ms) VALUES ($1, $2, $3, $3)
ON CONFLICT DO NOTHING RETURNING registered_model_id

-- name: lock_model
-- The model of a name, locked.
SELECT registered_model_id FROM registered_models WHERE name = $1 FOR UPDATE

-- name: models
-- Models by their names.
SELECT registered_model_id, name, description, created_at_ms, updated_at_ms FROM registered_models
WHERE name = ANY($1::text[])

-- name: model_tags
-- Tags of models.
SELECT registered_model_id, key, value FROM registered_model_tags
WHERE registered_model_id = ANY($1::bigint[]) ORDER BY registered_model_id, key

-- name: model_aliases
-- Aliases of models.
SELECT registered_model_id, alias, version FROM model_aliases
WHERE registered_model_id = ANY($1::bigint[]) ORDER BY registered_model_id, alias

-- name: latest_versions
-- The newest version of each stage.
SELECT DISTINCT ON (v.registered_model_id, v.stage) m.name, v.version
FROM model_versions AS v JOIN registered_models AS m USING (registered_model_id)
WHERE v.registered_model_id = ANY($1::bigint[])
ORDER BY v.registered_model_id, v.stage, v.version DESC

-- name: rename_model
-- A new name, which its versions have too; nothing when another model has it.
WITH renamed AS (
    UPDATE registered_models SET name = $2, updated_at_ms = $3
    WHERE registered_model_id = $1
        AND NOT EXISTS (SELECT FROM registered_models WHERE name = $2 AND registered_model_id <> $1)
    RETURNING registered_model_id
), versions AS (
    UPDATE model_versions SET updated_at_ms = $3 WHERE registered_model_id IN (SELECT registered_model_id FROM renamed)
)
SELECT registered_model_id FROM renamed

-- name: describe_model
-- A new description.
UPDATE registered_models SET description = $2, updated_at_ms = $3 WHERE registered_model_id = $1

-- name: touch_model
-- Something of it has changed.
UPDATE registered_models SET updated_at_ms = $2 WHERE registered_model_id = $1

-- name: delete_model
-- The model and all that belongs to it.
DELETE FROM registered_models WHERE registered_model_id = $1

-- name: set_model_tag
-- The last value stays.
INSERT INTO registered_model_tags (registered_model_id, key, value) VALUES ($1, $2, $3)
ON CONFLICT (registered_model_id, key) DO UPDATE SET value = excluded.value

-- name: delete_model_tag
-- A tag goes, if it is there.
DELETE FROM registered_model_tags WHERE registered_model_id = $1 AND key = $2

-- name: next_version
-- A number that was never used.
UPDATE registered_models SET last_version = last_version + 1, updated_at_ms = $2 WHERE registered_model_id = $1
RETURNING last_version

-- name: create_version
-- A new version.
INSERT INTO model_versions (registered_model_id, version, source, storage_location, run_id, model_id, run_link,
    description, user_id, created_at_ms, updated_at_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)

-- name: versions
-- Versions by model and number.
SELECT m.name, v.registered_model_id, v.version, v.source, v.storage_location, v.run_id, v.model_id, v.run_link,
    v.description, v.user_id, v.stage, v.created_at_ms, v.updated_at_ms
FROM unnest($1::text[], $2::integer[]) WITH ORDINALITY AS w (name, version, place)
JOIN registered_models AS m USING (name)
JOIN model_versions AS v ON v.registered_model_id = m.registered_model_id AND v.version = w.version
ORDER BY w.place

-- name: version_tags
-- Tags of versions.
SELECT t.registered_model_id, t.version, t.key, t.value
FROM unnest($1::bigint[], $2::integer[]) AS w (registered_model_id, version)
JOIN model_version_tags AS t USING (registered_model_id, version)
ORDER BY t.registered_model_id, t.version, t.key

-- name: describe_version
-- A new description.
UPDATE model_versions SET description = $3, updated_at_ms = $4 WHERE registered_model_id = $1 AND version = $2
RETURNING version

-- name: set_stage
-- A new stage.
UPDATE model_versions SET stage = $3, updated_at_ms = $4 WHERE registered_model_id = $1 AND version = $2
RETURNING version

-- name: archive_others
-- Other versions of the stage.
UPDATE model_versions SET stage = 'Archived', updated_at_ms = $4
WHERE registered_model_id = $1 AND version <> $2 AND stage = $3

-- name: delete_version
-- The version and all that belongs to it; its number is not used again.
DELETE FROM model_versions WHERE registered_model_id = $1 AND version = $2 RETURNING version

-- name: set_version_tag
-- The last value stays.
INSERT INTO model_version_tags (registered_model_id, version, key, value) VALUES ($1, $2, $3, $4)
ON CONFLICT (registered_model_id, version, key) DO UPDATE SET value = excluded.value

-- name: delete_version_tag
-- A tag goes, if it is there.
DELETE FROM model_version_tags WHERE registered_model_id = $1 AND version = $2 AND key = $3

-- name: version_exists
-- Whether there is such a version.
SELECT version FROM model_versions WHERE registered_model_id = $1 AND version = $2

-- name: set_alias
-- An alias moves.
INSERT INTO model_aliases (registered_model_id, alias, version) VALUES ($1, $2, $3)
ON CONFLICT (registered_model_id, alias) DO UPDATE SET version = excluded.version

-- name: delete_alias
-- An alias goes, if it is there.
DELETE FROM model_aliases WHERE registered_model_id = $1 AND alias = $2
