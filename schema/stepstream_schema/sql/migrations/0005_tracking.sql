-- What MLflow's tracking API knows of experiments, runs and logged models beyond names and times.

ALTER TABLE experiments
    -- Empty: below the server's own artifact root.
    ADD COLUMN artifact_location text NOT NULL DEFAULT '',
    ADD COLUMN updated_at_ms bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

CREATE TABLE experiment_tags (
    experiment_id bigint NOT NULL REFERENCES experiments ON DELETE CASCADE,
    key text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (experiment_id, key)
);

-- A dataset is known by its name and digest within an experiment.
CREATE TABLE datasets (
    dataset_id uuid PRIMARY KEY,
    experiment_id bigint NOT NULL REFERENCES experiments ON DELETE CASCADE,
    name text NOT NULL,
    digest text NOT NULL,
    source_type text NOT NULL,
    source text NOT NULL,
    schema text NOT NULL DEFAULT '',
    profile text NOT NULL DEFAULT '',
    UNIQUE (experiment_id, name, digest)
);

CREATE TABLE run_datasets (
    run_id uuid NOT NULL,
    dataset_id uuid NOT NULL,
    -- {"mlflow.data.context": "training"}
    tags jsonb NOT NULL DEFAULT '{}',
    logged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, dataset_id)
);

CREATE TABLE logged_models (
    model_id uuid PRIMARY KEY,
    experiment_id bigint NOT NULL REFERENCES experiments ON DELETE CASCADE,
    name text NOT NULL,
    model_type text NOT NULL DEFAULT '',
    source_run_id uuid,
    status text NOT NULL DEFAULT 'LOGGED_MODEL_PENDING',
    status_message text NOT NULL DEFAULT '',
    created_at_ms bigint NOT NULL,
    updated_at_ms bigint NOT NULL,
    lifecycle_stage text NOT NULL DEFAULT 'active'
);
CREATE INDEX logged_models_of_experiment ON logged_models (experiment_id, created_at_ms DESC);
CREATE INDEX logged_models_of_run ON logged_models (source_run_id);

CREATE TABLE logged_model_params (
    model_id uuid NOT NULL REFERENCES logged_models ON DELETE CASCADE,
    key text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (model_id, key)
);

CREATE TABLE logged_model_tags (
    model_id uuid NOT NULL REFERENCES logged_models ON DELETE CASCADE,
    key text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (model_id, key)
);

-- Models that a run has read (inputs) or made (outputs, at a step).
CREATE TABLE run_models (
    run_id uuid NOT NULL,
    direction text NOT NULL CHECK (direction IN ('input', 'output')),
    model_id uuid NOT NULL,
    step bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, direction, model_id)
);
