"""How fast are answers, and where does the time go?"""

from monitoring.dashboards.model import MODEL, Dashboard, Panel, Query, Row, Variable
from monitoring.dashboards.promql import OF_MODEL, mean, or_none, quantile, rate
from monitoring.dashboards.shared import PROCESS, PROCESS_NAME, lines, quantiles

OF_ROUTE = 'route=~"$route"'
SECONDS = "http_request_duration_seconds"

REQUESTS = Row(
    "Requests",
    [
        Panel(
            "Answers by route",
            "A request that waits for its task counts when it is answered.",
            [lines("http_requests_total", "route", OF_ROUTE)],
            "reqps",
        ),
        Panel(
            "Answers by status",
            "Of the chosen routes.",
            [lines("http_requests_total", "status", OF_ROUTE)],
            "reqps",
            stacked=True,
        ),
        Panel(
            "Time of an answer",
            "With `Prefer: wait` it holds the whole life of the task.",
            quantiles((0.5, 0.95, 0.99), SECONDS, where=OF_ROUTE),
            "s",
        ),
        Panel(
            "95 % are answered within",
            "By route.",
            [Query(quantile(0.95, SECONDS, "route", OF_ROUTE), "{{route}}")],
            "s",
        ),
        Panel(
            "In flight",
            "Requests that are being answered now; most of them wait for their task.",
            [Query(f"sum by ({PROCESS}) (inferstack_http_requests_in_flight)", PROCESS_NAME)],
        ),
        Panel(
            "Connections",
            "Open ones of each API process.",
            [Query(f"sum by ({PROCESS}) (inferstack_http_connections)", PROCESS_NAME)],
        ),
    ],
)

QUEUE = Row(
    "Into the queue",
    [
        Panel(
            "Accepted tasks",
            "By priority.",
            [lines("inferstack_tasks_accepted_total", "priority", OF_MODEL)],
            "ops",
            stacked=True,
        ),
        Panel(
            "Finished within the wait",
            "Tasks that were answered to a caller who waited, by state.",
            [lines("inferstack_tasks_answered_total", "state", OF_MODEL)],
            "ops",
        ),
        Panel(
            "Time of a commit",
            "One call of Redis that takes a group of tasks, fsync included.",
            quantiles((0.5, 0.99), "inferstack_commit_seconds"),
            "s",
        ),
        Panel(
            "Tasks of a commit",
            "They grow with the load: requests that arrive during a commit form the next.",
            [Query(mean("inferstack_commit_tasks"), "mean")],
        ),
        Panel(
            "Services behind the API",
            "How long each took for the latest check.",
            [Query("max by (component) (inferstack_component_check_seconds)", "{{component}}")],
            "s",
        ),
        Panel(
            "Credentials verified",
            "Passwords, tokens and keys that were not in the cache.",
            [
                Query(
                    or_none(rate("inferstack_credential_checks_total", "kind, outcome"), "kind"),
                    "{{kind}} {{outcome}}",
                )
            ],
            "ops",
        ),
    ],
)

DASHBOARD = Dashboard(
    "API Performance",
    "How fast the API answers, and what it waits for.",
    [REQUESTS, QUEUE],
    (MODEL, Variable("route", "http_requests_total")),
)
