-- Metrics that a client says belong to a logged model, and perhaps to a dataset. A few for each model, as evaluation makes
-- them; the run's own series of the same points are in frames and chunks as ever.

CREATE TABLE logged_model_metrics (
    model_id uuid NOT NULL REFERENCES logged_models ON DELETE CASCADE,
    run_id uuid NOT NULL,
    key text NOT NULL,
    step bigint NOT NULL,
    time_ms bigint NOT NULL,
    value double precision NOT NULL,
    dataset_name text NOT NULL DEFAULT '',
    dataset_digest text NOT NULL DEFAULT '',
    PRIMARY KEY (model_id, key, time_ms, step, run_id)
);
