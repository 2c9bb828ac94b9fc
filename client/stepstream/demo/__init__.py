"""`stepstream demo`: a real server, a real multi-process training, and the proof that every point arrived."""
