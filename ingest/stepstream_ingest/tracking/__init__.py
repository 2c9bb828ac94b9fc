"""Experiments and runs: what they are called, how they stand, and who is still heard."""
