"""Artifacts: files of runs, whose bytes go straight between the client and an object store."""
