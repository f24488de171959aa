"""What outlives Redis: PostgreSQL for history and accounts, an object store for large bodies."""
