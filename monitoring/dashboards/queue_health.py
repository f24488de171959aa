"""Does work flow, and what holds it up?"""

from monitoring.dashboards.model import Dashboard, Panel, Query, Row
from monitoring.dashboards.promql import OF_MODEL, mean, of_queue, quantile, queue_rate, rate
from monitoring.dashboards.shared import DEPLOYMENT, NAME, REPEATED, WAITING, quantiles

QUEUE = Row(
    "Queue",
    [
        Panel(
            "Waiting",
            "By priority. High goes first; one claim in eight begins with the lowest.",
            [Query(f"sum by (priority) ({WAITING})", "{{priority}}")],
            stacked=True,
        ),
        Panel(
            "Running and waiting for a retry",
            "Leased to replicas, or put off after an attempt that failed.",
            [
                Query(f"sum({of_queue('inferstack_queue_running')})", "running"),
                Query(f"sum({of_queue('inferstack_queue_delayed')})", "waits for a retry"),
            ],
        ),
        Panel(
            "Predicted wait",
            "Of a new task: what waits, by what the replicas can do.",
            [Query(f"inferstack:queue_wait_estimate_seconds{{{OF_MODEL}}}", NAME)],
            "s",
        ),
        Panel(
            "Wait of 95 %",
            "From the submit until the last claim, by priority.",
            [
                Query(
                    quantile(0.95, "inferstack_queue_wait_seconds", "priority", OF_MODEL),
                    "{{priority}}",
                )
            ],
            "s",
        ),
        Panel(
            "Completed, and what could be",
            "While work waits, both should be close.",
            [
                Query(queue_rate("inferstack_queue_completed_total"), f"{NAME} completed"),
                Query(of_queue("inferstack_queue_capacity"), f"{NAME} capacity"),
            ],
            "ops",
        ),
        Panel("Replicas", "Live ones.", [Query(of_queue("inferstack_queue_replicas"), NAME)]),
    ],
)

BATCHES = Row(
    "Batches",
    [
        Panel(
            "Batch size",
            "Mean. It grows with the load, up to the model's `max_size`.",
            [Query(mean("inferstack_batch_tasks", DEPLOYMENT, OF_MODEL), NAME)],
        ),
        Panel(
            "Padding",
            "Share of what is computed that is padding: inputs of a batch differ in length.",
            [Query(f"inferstack:batch_padding:ratio5m{{{OF_MODEL}}}", NAME)],
            "percentunit",
        ),
        Panel(
            "Time of a batch",
            "One call of predict.",
            quantiles((0.5, 0.95), "inferstack_batch_seconds", DEPLOYMENT, OF_MODEL, NAME),
            "s",
        ),
        Panel(
            "Wait for the batch",
            "From the claim until the batch began, 95 %.",
            [
                Query(
                    quantile(0.95, "inferstack_batch_wait_seconds", DEPLOYMENT, OF_MODEL),
                    NAME,
                )
            ],
            "s",
        ),
        Panel(
            "Time of a claim",
            "One that got tasks, 95 %. It is time of Redis and of the way there.",
            [Query(quantile(0.95, "inferstack_claim_seconds", DEPLOYMENT, OF_MODEL), NAME)],
            "s",
        ),
        REPEATED,
    ],
)

HISTORY = Row(
    "Into history",
    [
        Panel(
            "Changes that wait",
            "In the outbox, for the recorder. At MAX_OUTBOX new work is refused.",
            [Query(of_queue("inferstack_queue_outbox"), NAME)],
        ),
        Panel(
            "Lag",
            "Age of the oldest change that is on its way. It grows while PostgreSQL is away.",
            [Query("max(inferstack_outbox_lag_seconds)", "lag")],
            "s",
        ),
        Panel(
            "Archived",
            "Versions of tasks, and the mean time of one batch of them.",
            [Query(rate("inferstack_archived_tasks_total"), "a second")],
            "ops",
            width=4,
        ),
        Panel(
            "Time of a batch",
            "One write into PostgreSQL.",
            [Query(mean("inferstack_archive_seconds"), "mean")],
            "s",
            width=4,
        ),
    ],
)

BACKGROUND = Row(
    "Background duties",
    [
        Panel(
            "Done last",
            "How long ago: retention, digest, usage, and sending again what the sweep finds.",
            [
                Query(
                    "time() - max by (duty) (inferstack_duty_success_timestamp_seconds)",
                    "{{duty}}",
                )
            ],
            "s",
        ),
        Panel(
            "Time of a turn",
            "Mean, since the process runs: turns are rare.",
            [
                Query(
                    "sum by (duty) (inferstack_duty_seconds_sum)"
                    " / sum by (duty) (inferstack_duty_seconds_count)",
                    "{{duty}}",
                )
            ],
            "s",
        ),
        Panel(
            "Turns that failed",
            "Since the process runs. The next turn does what this one did not.",
            [Query("sum by (duty) (inferstack_duty_failures_total)", "{{duty}}")],
        ),
    ],
)

DASHBOARD = Dashboard(
    "Queue Health",
    "How work flows from submit to history.",
    [QUEUE, BATCHES, HISTORY, BACKGROUND],
)
