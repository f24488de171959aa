"""The embedded stack: real Redis and PostgreSQL and inferstack's own processes, on this machine."""
