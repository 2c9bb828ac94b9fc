"""The model registry: models, their versions, stages, aliases and tags."""
