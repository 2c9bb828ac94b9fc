-- Artifacts: which objects the store holds, and where they lie in the trees of runs.
-- Objects are shared between trees, so they lead with an id of their own; the manifest leads with its owner.

-- What the servers of this database share and nobody else may know, such as the key that signs URLs.
CREATE TABLE secrets (
    name text PRIMARY KEY,
    value bytea NOT NULL
);
INSERT INTO secrets (name, value) VALUES
    ('artifact urls', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

CREATE TABLE objects (
    object_id uuid PRIMARY KEY,
    size bigint NOT NULL,
    -- Null where only the store has seen the bytes, and does not tell.
    sha256 bytea,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX objects_by_hash ON objects (sha256, size) WHERE sha256 IS NOT NULL;

CREATE TABLE artifacts (
    -- A run's id, or another tree's.
    owner uuid NOT NULL,
    path text COLLATE "C" NOT NULL,
    object_id uuid NOT NULL,
    size bigint NOT NULL,
    content_type text NOT NULL,
    -- When it was logged, by its client's clock: a late delivery never replaces a newer file.
    logged_at_ms bigint NOT NULL,
    rank integer,
    PRIMARY KEY (owner, path)
);
CREATE INDEX artifacts_of_object ON artifacts (object_id);

-- What was announced and is not complete; its object's key is its own id.
CREATE TABLE uploads (
    upload_id uuid PRIMARY KEY,
    owner uuid NOT NULL,
    path text COLLATE "C" NOT NULL,
    size bigint,
    sha256 bytea,
    content_type text NOT NULL,
    logged_at_ms bigint NOT NULL,
    rank integer,
    -- The store's name for an upload in parts; null for one that is sent whole.
    parts_token text,
    part_bytes bigint NOT NULL,
    touched_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX uploads_of_path ON uploads (owner, path);
CREATE INDEX uploads_by_age ON uploads (touched_at);
