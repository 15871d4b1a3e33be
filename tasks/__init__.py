"""The door to Celery. Each task parses, binds the log, calls, and is done; it is safe to run twice."""
