"""What goes wrong, how often, and whose fault is it?"""

from monitoring.dashboards.model import Dashboard, Panel, Query, Row, Threshold
from monitoring.dashboards.promql import OF_MODEL, of_queue, or_none, or_zero, queue_rate, rate
from monitoring.dashboards.shared import DEPLOYMENT, NAME, REPEATED, lines_or_none

ANSWERS = Row(
    "Answers",
    [
        Panel(
            "Server errors",
            "Share of answers that are 5xx, without 503: the server's own fault.",
            [Query("inferstack:http_server_errors:ratio5m", "share")],
            "percentunit",
            thresholds=[Threshold(0.01, "red")],
        ),
        Panel(
            "Refusals",
            "Share of answers that are 429 or 503: a tenant or the system has enough to do.",
            [Query("inferstack:http_refusals:ratio5m", "share")],
            "percentunit",
            thresholds=[Threshold(0.05, "orange")],
        ),
        Panel(
            "Answers that are errors",
            "By status: 4xx is the caller's, 5xx the server's.",
            [lines_or_none("http_requests_total", "status", 'status=~"4..|5.."')],
            "reqps",
            stacked=True,
        ),
        Panel(
            "Problems",
            "By type, as callers read it in `type`.",
            [lines_or_none("inferstack_http_problems_total", "problem")],
            "ops",
        ),
        Panel(
            "Connections cut off",
            "Clients that were too slow: with their request, their body, or reading the answer.",
            [lines_or_none("inferstack_http_connections_aborted_total", "reason")],
            "ops",
        ),
        Panel(
            "Services that do not answer",
            "Of those behind the API, seen by any API process.",
            [Query("1 - min by (component) (inferstack_component_up)", "{{component}}")],
            most=1,
        ),
    ],
)

TASKS = Row(
    "Tasks",
    [
        Panel(
            "Failed for good",
            "By the type of the error: each is a dead letter.",
            [lines_or_none("inferstack_dead_letters_total", "error", OF_MODEL)],
            "ops",
        ),
        Panel(
            "Share that fails",
            "Of the tasks that ended, by deployment.",
            [
                Query(
                    or_none(f"inferstack:tasks_failed:ratio5m{{{OF_MODEL}}}", "model"),
                    "{{model}} {{version}}",
                )
            ],
            "percentunit",
            thresholds=[Threshold(0.05, "red")],
        ),
        Panel(
            "Expired",
            "Their deadline passed before they were done.",
            [Query(queue_rate("inferstack_queue_expired_total"), NAME)],
            "ops",
        ),
        REPEATED,
        Panel(
            "Inputs that fail alone",
            "A batch that raised is halved until the input to blame is alone.",
            [Query(rate("inferstack_batch_items_failed_total", DEPLOYMENT, OF_MODEL), NAME)],
            "ops",
        ),
        Panel(
            "Computed for nothing",
            "Results whose lease had gone to another replica; tasks dropped before their batch.",
            [
                Query(rate("inferstack_completions_stale_total", where=OF_MODEL), "stale"),
                Query(rate("inferstack_tasks_dropped_total", where=OF_MODEL), "dropped"),
            ],
            "ops",
        ),
    ],
)

PARTS = Row(
    "Parts",
    [
        Panel(
            "Circuit breakers opened",
            "In the last hour.",
            [
                Query(
                    f"max by (model, version) (increase(inferstack_circuit_opened_total"
                    f"{{{OF_MODEL}}}[1h]))",
                    NAME,
                )
            ],
            width=12,
        ),
        Panel(
            "Circuit breakers",
            "1 open, 0.5 tried again, 0 closed.",
            [Query(of_queue("inferstack_circuit_open"), NAME)],
            most=1,
        ),
        Panel(
            "History not written",
            "Batches that PostgreSQL did not take; they are tried again.",
            [Query(or_zero(rate("inferstack_archive_failures_total")), "batches")],
            "ops",
            width=4,
        ),
    ],
)

DASHBOARD = Dashboard(
    "Error Rates",
    "What goes wrong, by who is to blame: callers, the system, a model.",
    [ANSWERS, TASKS, PARTS],
)
