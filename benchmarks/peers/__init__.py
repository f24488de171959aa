"""Servers that inferstack is measured against; each runs in the venv of the peers."""
