"""Backup and restore of Redis, PostgreSQL and the object store, as one folder."""
