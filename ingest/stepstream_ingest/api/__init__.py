"""StepStream's own JSON API over several slices at once."""
