"""The queue: the only home of Redis."""
