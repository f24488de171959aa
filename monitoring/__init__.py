"""What Prometheus, Grafana, Loki and Alloy need to watch inferstack."""
