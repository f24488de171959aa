"""Grafana's dashboards. `python -m monitoring.dashboards` writes their JSON."""

from pathlib import Path

from monitoring.dashboards import (
    api_performance,
    error_rates,
    gpu_utilization,
    queue_health,
    system_overview,
)

FOLDER = Path(__file__).parents[1] / "grafana" / "dashboards"

DASHBOARDS = (
    system_overview.DASHBOARD,
    api_performance.DASHBOARD,
    gpu_utilization.DASHBOARD,
    queue_health.DASHBOARD,
    error_rates.DASHBOARD,
)
