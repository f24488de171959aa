"""Is it well? What does it do?"""

from monitoring.dashboards.model import Dashboard, Panel, Query, Row, Threshold
from monitoring.dashboards.promql import OF_MODEL, of_queue, or_none, queue_rate, rate
from monitoring.dashboards.shared import NAME, PROCESS, PROCESS_NAME, WAITING, lines, quantiles

COMPLETED = f'{OF_MODEL}, state="completed"'


def _number(title: str, text: str, expr: str, unit: str = "short", *thresholds: Threshold) -> Panel:
    return Panel(title, text, [Query(expr)], unit, "stat", width=4, height=4, thresholds=thresholds)


NOW = Row(
    "Now",
    [
        _number("Requests", "Answers of all API processes.", rate("http_requests_total"), "reqps"),
        _number(
            "Completed",
            "Tasks that got a result.",
            f"sum({queue_rate('inferstack_queue_completed_total')})",
            "ops",
        ),
        _number(
            "Waiting",
            "Tasks that wait for a replica.",
            f"sum({WAITING})",
        ),
        _number(
            "Replicas",
            "Processes that compute.",
            f"sum({of_queue('inferstack_queue_replicas')})",
        ),
        _number(
            "Server errors",
            "Share of answers that are 5xx, without 503.",
            "inferstack:http_server_errors:ratio5m",
            "percentunit",
            Threshold(0.001, "orange"),
            Threshold(0.01, "red"),
        ),
        _number(
            "Alerts",
            "Firing now; the list is in Prometheus under /alerts.",
            'count(ALERTS{alertname=~"Inferstack.*", alertstate="firing"}) or vector(0)',
            "short",
            Threshold(1, "red"),
        ),
    ],
)

TRAFFIC = Row(
    "Traffic",
    [
        Panel(
            "Answers by status",
            "202 is a task that lives on, 429 and 503 say when to come back.",
            [lines("http_requests_total", "status")],
            "reqps",
            stacked=True,
        ),
        Panel(
            "Tasks that ended",
            "By their final state; counted when PostgreSQL has them.",
            [lines("inferstack_tasks_finished_total", "state", OF_MODEL)],
            "ops",
            stacked=True,
        ),
        Panel(
            "From submit to end",
            "How long completed tasks took, waiting included.",
            quantiles((0.5, 0.95, 0.99), "inferstack_task_duration_seconds", where=COMPLETED),
            "s",
        ),
        Panel(
            "Tasks waiting",
            "By priority. It grows while more comes in than the replicas can do.",
            [Query(f"sum by (priority) ({WAITING})", "{{priority}}")],
            stacked=True,
        ),
        Panel(
            "Completed by model",
            "Tasks a second.",
            [Query(queue_rate("inferstack_queue_completed_total"), NAME)],
            "ops",
        ),
        Panel(
            "Replicas",
            "Live ones of each deployment.",
            [Query(of_queue("inferstack_queue_replicas"), NAME)],
        ),
    ],
)

PARTS = Row(
    "Parts",
    [
        Panel(
            "Processes",
            "That answer scrapes, by what they are.",
            [Query('count by (service) (up{job="inferstack"} == 1)', "{{service}}")],
        ),
        Panel(
            "Services behind the API",
            "1 while Redis (queue), PostgreSQL (database) and the object store answer.",
            [Query("min by (component) (inferstack_component_up)", "{{component}}")],
            most=1,
        ),
        Panel(
            "Circuit breakers",
            "1 while a deployment keeps failing and takes no work, 0.5 while it is tried again.",
            [Query(of_queue("inferstack_circuit_open"), NAME)],
            most=1,
        ),
        Panel(
            "Processor time",
            "Cores that each process uses.",
            [
                Query(
                    rate("process_cpu_seconds_total", f"service, {PROCESS}", 'job="inferstack"'),
                    PROCESS_NAME,
                )
            ],
        ),
        Panel(
            "Memory",
            "Resident, of each process.",
            [
                Query(
                    f"sum by (service, {PROCESS})"
                    ' (process_resident_memory_bytes{job="inferstack"})',
                    PROCESS_NAME,
                )
            ],
            "bytes",
        ),
        Panel(
            "Alerts",
            "Firing, by name; docs/operations.md says what to do.",
            [
                Query(
                    or_none(
                        'count by (alertname) (ALERTS{alertname=~"Inferstack.*",'
                        ' alertstate="firing"})',
                        "alertname",
                    ),
                    "{{alertname}}",
                )
            ],
        ),
    ],
)

DASHBOARD = Dashboard(
    "System Overview",
    "What inferstack does now, and whether all its parts are well.",
    [NOW, TRAFFIC, PARTS],
)
