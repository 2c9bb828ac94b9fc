"""What client and server agree on: the frame, its limits, the API paths and the SQL."""
