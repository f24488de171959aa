"""Replicas: they claim, batch, compute and complete."""
