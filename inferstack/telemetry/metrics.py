"""Every metric of inferstack, declared in one place; see `docs/` for what to watch.

Times are seconds, sizes are tasks unless the name says otherwise. Each process serves its
own values; nothing is shared between processes.
"""

from prometheus_client import Counter, Gauge, Histogram, Info

HTTP_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
COMPUTE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
DEPLOYMENT = ("model", "version")

BUILD = Info("inferstack_build", "Version of the running code.")

# HTTP, by the API.
HTTP_SECONDS = Histogram(
    "inferstack_http_request_seconds",
    "From the whole request read until the answer is written; its count is the request count.",
    ("route", "method", "status"),
    buckets=HTTP_BUCKETS,
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

# The queue, as sampled by each API process at most a second ago.
QUEUE_WAITING = Gauge(
    "inferstack_queue_waiting", "Tasks that wait for a replica.", (*DEPLOYMENT, "priority")
)
QUEUE_DELAYED = Gauge("inferstack_queue_delayed", "Tasks that wait for a retry.", DEPLOYMENT)
QUEUE_RUNNING = Gauge("inferstack_queue_running", "Tasks leased to replicas.", DEPLOYMENT)
QUEUE_OUTBOX = Gauge(
    "inferstack_queue_outbox", "State changes that wait for the recorder.", DEPLOYMENT
)
QUEUE_REPLICAS = Gauge("inferstack_queue_replicas", "Live replicas.", DEPLOYMENT)
QUEUE_CAPACITY = Gauge(
    "inferstack_queue_capacity", "Tasks per second that the live replicas can do.", DEPLOYMENT
)
# Gauges, not counters: they are copied from Redis, and every API process shows the same value.
QUEUE_COMPLETED = Gauge(
    "inferstack_queue_completed_total", "Tasks completed since the queue exists.", DEPLOYMENT
)
QUEUE_FAILED = Gauge(
    "inferstack_queue_failed_total", "Tasks failed since the queue exists.", DEPLOYMENT
)
QUEUE_EXPIRED = Gauge(
    "inferstack_queue_expired_total", "Tasks expired since the queue exists.", DEPLOYMENT
)
CIRCUIT = Gauge(
    "inferstack_circuit_open",
    "Circuit breaker of a deployment: 0 closed, 0.5 half-open, 1 open.",
    DEPLOYMENT,
)
CIRCUIT_OPENED = Gauge(
    "inferstack_circuit_opened_total",
    "How often the circuit opened since the queue exists.",
    DEPLOYMENT,
)
DEPLOYMENT_READY = Gauge(
    "inferstack_deployment_ready", "1 if the deployment is ready, 0 if not.", DEPLOYMENT
)

# Replicas.
BATCH_SECONDS = Histogram(
    "inferstack_batch_seconds", "One call of predict.", DEPLOYMENT, buckets=COMPUTE_BUCKETS
)
BATCH_TASKS = Histogram(
    "inferstack_batch_tasks", "Tasks in one batch.", DEPLOYMENT, buckets=SIZE_BUCKETS
)
BATCH_ITEMS_FAILED = Counter(
    "inferstack_batch_items_failed",
    "Tasks that failed alone: predict raised, or its output is no JSON.",
    DEPLOYMENT,
)
CLAIM_SECONDS = Histogram(
    "inferstack_claim_seconds", "One claim that got tasks.", DEPLOYMENT, buckets=COMPUTE_BUCKETS
)
COMPLETIONS_STALE = Counter(
    "inferstack_completions_stale",
    "Results thrown away because the lease had gone to another attempt.",
    DEPLOYMENT,
)
TASKS_DROPPED = Counter(
    "inferstack_tasks_dropped",
    "Tasks that were cancelled or expired while a replica held them.",
    DEPLOYMENT,
)
DEVICE_UTILISATION = Gauge(
    "inferstack_device_utilisation", "Share of time the device computes, 0 to 1.", ("device",)
)
DEVICE_MEMORY_BYTES = Gauge("inferstack_device_memory_bytes", "Device memory in use.", ("device",))

# The recorder.
ARCHIVED = Counter("inferstack_archived_tasks", "Task versions written to PostgreSQL.")
ARCHIVE_SECONDS = Histogram(
    "inferstack_archive_seconds", "One batch written to PostgreSQL.", buckets=COMPUTE_BUCKETS
)
ARCHIVE_FAILURES = Counter(
    "inferstack_archive_failures", "Batches that could not be written.", ("reason",)
)
