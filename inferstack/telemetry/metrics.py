"""Every metric of inferstack, declared in one place; docs/monitoring.md says what to watch.

Times are seconds, sizes are tasks unless the name says otherwise. Each process serves its
own values; nothing is shared between processes. What has no registry is the API's.

Five names are those that everybody looks for: `http_requests_total`,
`http_request_duration_seconds`, `queue_depth`, `gpu_utilization` and `gpu_memory_used`. All
others begin with `inferstack_`.
"""

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from inferstack import __version__
from inferstack.telemetry.families import Copied, Times

# A second series for each counter, which says when its process started: one is enough.
disable_created_metrics()  # type: ignore[no-untyped-call]

API = REGISTRY
REPLICA = CollectorRegistry()
WORKER = CollectorRegistry()
"""Of the process that keeps a machine's replicas running: its devices."""
RECORDER = CollectorRegistry()
BACKGROUND = CollectorRegistry()
for _registry in (REPLICA, WORKER, RECORDER, BACKGROUND):
    ProcessCollector(registry=_registry)

HTTP_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
COMPUTE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
WAIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
DEPLOYMENT = ("model", "version")

BUILD = Info("inferstack_build", "Version of the running code.", registry=None)
BUILD.info({"version": __version__})
for _registry in (API, REPLICA, WORKER, RECORDER, BACKGROUND):
    _registry.register(BUILD)

# HTTP, by the API.
HTTP = Times(
    "http_request_duration_seconds",
    "From the whole request read until the answer is written.",
    ("route", "method", "status"),
    HTTP_BUCKETS,
    counter=("http_requests", "Requests answered."),
)
HTTP_IN_FLIGHT = Gauge("inferstack_http_requests_in_flight", "Requests being answered now.")
HTTP_CONNECTIONS = Gauge("inferstack_http_connections", "Open client connections.")
HTTP_CONNECTIONS_ABORTED = Counter(
    "inferstack_http_connections_aborted",
    "Connections closed because the client was too slow.",
    ("reason",),
)
HTTP_PROBLEMS = Counter(
    "inferstack_http_problems", "Answers with problem details, by their type.", ("problem",)
)
CREDENTIAL_CHECKS = Counter(
    "inferstack_credential_checks",
    "Credentials that were not in the cache of verified ones.",
    ("kind", "outcome"),
)

# Tasks, by the API.
TASKS_ACCEPTED = Counter(
    "inferstack_tasks_accepted",
    "Tasks accepted durably, as answered to callers.",
    (*DEPLOYMENT, "priority"),
)
TASKS_ANSWERED = Counter(
    "inferstack_tasks_answered",
    "Finished tasks returned to a caller that waited.",
    (*DEPLOYMENT, "state"),
)
COMMIT_SECONDS = Histogram(
    "inferstack_commit_seconds",
    "One group commit into the queue, fsync included.",
    buckets=COMPUTE_BUCKETS,
)
COMMIT_TASKS = Histogram(
    "inferstack_commit_tasks", "Tasks in one group commit.", buckets=SIZE_BUCKETS
)

DEAD_LETTERS_REDRIVEN = Counter(
    "inferstack_dead_letters_redriven", "Failed tasks submitted again as new ones.", DEPLOYMENT
)
DEAD_LETTERS_PURGED = Counter(
    "inferstack_dead_letters_purged", "Failed tasks removed by their owners.", DEPLOYMENT
)

# The queue, as sampled by each API process at most a second ago: every one shows the same.
QUEUE_DEPTH = Copied(
    GaugeMetricFamily,
    "queue_depth",
    "Tasks that wait for a replica.",
    (*DEPLOYMENT, "priority"),
)
QUEUE_DELAYED = Copied(
    GaugeMetricFamily, "inferstack_queue_delayed", "Tasks that wait for a retry.", DEPLOYMENT
)
QUEUE_RUNNING = Copied(
    GaugeMetricFamily, "inferstack_queue_running", "Tasks leased to replicas.", DEPLOYMENT
)
QUEUE_OUTBOX = Copied(
    GaugeMetricFamily,
    "inferstack_queue_outbox",
    "State changes that wait for the recorder.",
    DEPLOYMENT,
)
QUEUE_REPLICAS = Copied(
    GaugeMetricFamily, "inferstack_queue_replicas", "Live replicas.", DEPLOYMENT
)
QUEUE_CAPACITY = Copied(
    GaugeMetricFamily,
    "inferstack_queue_capacity",
    "Tasks per second that the live replicas can do; 0 if not known yet.",
    DEPLOYMENT,
)
QUEUE_COMPLETED = Copied(
    CounterMetricFamily,
    "inferstack_queue_completed",
    "Tasks completed since the queue exists.",
    DEPLOYMENT,
)
QUEUE_FAILED = Copied(
    CounterMetricFamily,
    "inferstack_queue_failed",
    "Tasks failed since the queue exists.",
    DEPLOYMENT,
)
QUEUE_EXPIRED = Copied(
    CounterMetricFamily,
    "inferstack_queue_expired",
    "Tasks expired since the queue exists.",
    DEPLOYMENT,
)
CIRCUIT = Copied(
    GaugeMetricFamily,
    "inferstack_circuit_open",
    "Circuit breaker of a deployment: 0 closed, 0.5 half-open, 1 open.",
    DEPLOYMENT,
)
CIRCUIT_OPENED = Copied(
    CounterMetricFamily,
    "inferstack_circuit_opened",
    "How often the circuit opened since the queue exists.",
    DEPLOYMENT,
)
DEPLOYMENT_READY = Copied(
    GaugeMetricFamily,
    "inferstack_deployment_ready",
    "1 if the deployment is ready, 0 if not.",
    DEPLOYMENT,
)
COMPONENT_UP = Copied(
    GaugeMetricFamily,
    "inferstack_component_up",
    "1 if a service that the API stands on answers, 0 if not.",
    ("component",),
)
COMPONENT_SECONDS = Copied(
    GaugeMetricFamily,
    "inferstack_component_check_seconds",
    "How long such a service took to answer the latest check.",
    ("component",),
)

# Replicas.
BATCH_SECONDS = Histogram(
    "inferstack_batch_seconds",
    "One batch: a call of predict, and more of them where an input is bad.",
    DEPLOYMENT,
    buckets=COMPUTE_BUCKETS,
    registry=REPLICA,
)
BATCH_TASKS = Histogram(
    "inferstack_batch_tasks",
    "Tasks in one batch.",
    DEPLOYMENT,
    buckets=SIZE_BUCKETS,
    registry=REPLICA,
)
BATCH_COST = Counter(
    "inferstack_batch_cost",
    "Cost of the inputs of all batches, in the model's own unit.",
    DEPLOYMENT,
    registry=REPLICA,
)
BATCH_PADDED_COST = Counter(
    "inferstack_batch_padded_cost",
    "The same when every input costs as much as the largest of its batch: what is computed.",
    DEPLOYMENT,
    registry=REPLICA,
)
BATCH_ITEMS_FAILED = Counter(
    "inferstack_batch_items_failed",
    "Tasks that failed alone: predict raised, or its output is no JSON.",
    DEPLOYMENT,
    registry=REPLICA,
)
CLAIM_SECONDS = Histogram(
    "inferstack_claim_seconds",
    "One claim that got tasks.",
    DEPLOYMENT,
    buckets=COMPUTE_BUCKETS,
    registry=REPLICA,
)
COMPLETIONS_STALE = Counter(
    "inferstack_completions_stale",
    "Results thrown away because the lease had gone to another attempt.",
    DEPLOYMENT,
    registry=REPLICA,
)
TASKS_DROPPED = Counter(
    "inferstack_tasks_dropped",
    "Tasks that were cancelled or expired while a replica held them.",
    DEPLOYMENT,
    registry=REPLICA,
)
# Counted by whoever sees it: the replica that reports an error, and the replica or the recorder
# that finds a lease run out.
TASK_RETRIES = Counter(
    "inferstack_task_retries",
    "Attempts that did not end a task: `error`, it failed; `lease`, its replica fell silent.",
    (*DEPLOYMENT, "reason"),
    registry=None,
)
REPLICA.register(TASK_RETRIES)
RECORDER.register(TASK_RETRIES)

# Devices, by the process that keeps a machine's replicas running.
GPU_UTILIZATION = Copied(
    GaugeMetricFamily,
    "gpu_utilization",
    "Share of the last second in which the GPU computed, in percent.",
    ("gpu", "name"),
    registry=WORKER,
)
GPU_MEMORY_USED = Copied(
    GaugeMetricFamily, "gpu_memory_used", "Bytes in use.", ("gpu", "name"), registry=WORKER
)
GPU_MEMORY_TOTAL = Copied(
    GaugeMetricFamily, "gpu_memory_total", "Bytes there are.", ("gpu", "name"), registry=WORKER
)
GPU_TEMPERATURE = Copied(
    GaugeMetricFamily, "gpu_temperature", "Degrees Celsius.", ("gpu", "name"), registry=WORKER
)
GPU_POWER = Copied(GaugeMetricFamily, "gpu_power_draw", "Watts.", ("gpu", "name"), registry=WORKER)

# The recorder: what became of every task, once each.
TASK_SECONDS = Times(
    "inferstack_task_duration_seconds",
    "From the submit of a task until its end.",
    (*DEPLOYMENT, "priority", "state"),
    WAIT_BUCKETS,
    counter=("inferstack_tasks_finished", "Tasks that reached a terminal state."),
    registry=RECORDER,
)
QUEUE_WAIT_SECONDS = Times(
    "inferstack_queue_wait_seconds",
    "From the submit of a task until its last claim.",
    (*DEPLOYMENT, "priority"),
    WAIT_BUCKETS,
    registry=RECORDER,
)
BATCH_WAIT_SECONDS = Times(
    "inferstack_batch_wait_seconds",
    "From the claim of a task until its batch began.",
    DEPLOYMENT,
    WAIT_BUCKETS,
    registry=RECORDER,
)
DEAD_LETTERS = Counter(
    "inferstack_dead_letters",
    "Tasks that failed for good, by the type of their error.",
    (*DEPLOYMENT, "error"),
    registry=RECORDER,
)
ARCHIVED = Counter(
    "inferstack_archived_tasks", "Task versions written to PostgreSQL.", registry=RECORDER
)
ARCHIVE_SECONDS = Histogram(
    "inferstack_archive_seconds",
    "One batch written to PostgreSQL.",
    buckets=COMPUTE_BUCKETS,
    registry=RECORDER,
)
ARCHIVE_FAILURES = Counter(
    "inferstack_archive_failures",
    "Batches that could not be written.",
    ("reason",),
    registry=RECORDER,
)
OUTBOX_LAG = Gauge(
    "inferstack_outbox_lag_seconds",
    "Age of the oldest change that was read and is not in PostgreSQL yet; 0 if there is none.",
    registry=RECORDER,
)

# Background duties, by Celery's worker.
DUTY_SECONDS = Histogram(
    "inferstack_duty_seconds",
    "One turn of a duty.",
    ("duty",),
    buckets=COMPUTE_BUCKETS,
    registry=BACKGROUND,
)
DUTY_ITEMS = Counter(
    "inferstack_duty_items", "What duties dealt with.", ("duty",), registry=BACKGROUND
)
DUTY_FAILURES = Counter(
    "inferstack_duty_failures", "Turns that failed.", ("duty",), registry=BACKGROUND
)
DUTY_SUCCESS = Gauge(
    "inferstack_duty_success_timestamp_seconds",
    "When a duty was done last, or its process began, in seconds since the epoch.",
    ("duty",),
    registry=BACKGROUND,
)
DUTY_PERIOD = Gauge(
    "inferstack_duty_period_seconds", "Between two turns.", ("duty",), registry=BACKGROUND
)
