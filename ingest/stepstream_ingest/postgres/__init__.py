"""PostgreSQL as a child process: found, initialised, started, watched and stopped."""
