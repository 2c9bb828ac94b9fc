"""The StepStream server: frames in, PostgreSQL behind, history out."""
