"""The MLflow protocol, translated to the slices; it holds no rule of its own."""
