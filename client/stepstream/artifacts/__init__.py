"""Artifacts of a run: sent in the background, straight to the object store, and fetched from it."""
