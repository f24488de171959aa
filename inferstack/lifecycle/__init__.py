"""The only place that changes a task's state."""
