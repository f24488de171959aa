"""Are the devices busy, and with what?"""

from monitoring.dashboards.model import Dashboard, Panel, Query, Row, Threshold
from monitoring.dashboards.promql import OF_MODEL, mean, rate
from monitoring.dashboards.shared import DEPLOYMENT, NAME, PROCESS, PROCESS_NAME

GPU = "{{instance}} GPU {{gpu}}"
DCGM = "{{Hostname}} GPU {{gpu}}"

DEVICES = Row(
    "Devices",
    [
        Panel(
            "Utilization",
            "Share of the time in which a kernel ran. A high one does not mean that it ran well.",
            [Query("gpu_utilization", GPU)],
            "percent",
            most=100,
        ),
        Panel("Memory used", "Of each GPU.", [Query("gpu_memory_used", GPU)], "bytes"),
        Panel(
            "Memory used, share",
            "Near 1 the next large batch fails.",
            [Query("gpu_memory_used / gpu_memory_total", GPU)],
            "percentunit",
            most=1,
            thresholds=[Threshold(0.95, "red")],
        ),
        Panel(
            "Temperature",
            "Above 85 °C a GPU slows itself down.",
            [Query("gpu_temperature", GPU)],
            "celsius",
            thresholds=[Threshold(85, "red")],
        ),
        Panel("Power", "Drawn by each GPU.", [Query("gpu_power_draw", GPU)], "watt"),
        Panel(
            "Replicas are busy",
            "Share of the time in which a replica computes; also on machines without a GPU.",
            [Query(f"inferstack:replica_busy:ratio5m{{{OF_MODEL}}}", NAME)],
            "percentunit",
            most=1,
        ),
    ],
)

WORK = Row(
    "Work",
    [
        Panel(
            "Tasks computed",
            "By replica.",
            [Query(rate("inferstack_batch_tasks_sum", PROCESS, OF_MODEL), PROCESS_NAME)],
            "ops",
        ),
        Panel(
            "Batch size",
            "Mean. Small batches waste a GPU: is there enough load, or `max_wait_ms` too short?",
            [Query(mean("inferstack_batch_tasks", DEPLOYMENT, OF_MODEL), NAME)],
        ),
        Panel(
            "Time of a batch",
            "Mean of one call of predict.",
            [Query(mean("inferstack_batch_seconds", DEPLOYMENT, OF_MODEL), NAME)],
            "s",
        ),
    ],
)

INSIDE = Row(
    "Inside, by the DCGM exporter",
    [
        Panel(
            "Tensor cores",
            "Share of the time in which they work: what a model should use most.",
            [Query("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", DCGM)],
            "percentunit",
            most=1,
        ),
        Panel(
            "Memory interface",
            "Share of the time in which it moves data. Near 1 the model is bound by memory.",
            [Query("DCGM_FI_PROF_DRAM_ACTIVE", DCGM)],
            "percentunit",
            most=1,
        ),
        Panel(
            "Clock",
            "Of the multiprocessors. It falls when the GPU is too hot or short of power.",
            [Query("DCGM_FI_DEV_SM_CLOCK * 1e6", DCGM)],
            "hertz",
        ),
        Panel(
            "Utilization",
            "As DCGM sees it, also of GPUs that run no replica.",
            [Query("DCGM_FI_DEV_GPU_UTIL", DCGM)],
            "percent",
            most=100,
        ),
        Panel(
            "Memory used",
            "As DCGM sees it.",
            [Query("DCGM_FI_DEV_FB_USED * 1024 * 1024", DCGM)],
            "bytes",
        ),
        Panel(
            "Errors (XID)",
            "Number of the latest error, 0 for none. NVIDIA's table of XIDs says what it is.",
            [Query("DCGM_FI_DEV_XID_ERRORS", DCGM)],
            thresholds=[Threshold(1, "red")],
        ),
    ],
)

DASHBOARD = Dashboard(
    "GPU Utilization",
    "How busy the devices are. `gpu_...` comes from the worker, `DCGM_...` from its exporter.",
    [DEVICES, WORK, INSIDE],
)
