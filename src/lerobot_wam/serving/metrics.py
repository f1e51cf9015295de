"""What the server counts, for Prometheus. Labels are from short fixed lists: no names, secrets or task texts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


class Metrics:
    """The server's numbers, in a registry of their own: several servers may live in one process."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.sessions = Gauge("wam_sessions", "Robots, by whether they are connected", ["state"], registry=registry)
        self.frames = Counter("wam_frames", "Observations taken in", registry=registry)
        self.plans = Counter("wam_plans", "Chunks sent to robots", registry=registry)
        self.superseded = Counter("wam_superseded", "Plan requests that a newer one replaced", registry=registry)
        self.queue_seconds = Histogram(
            "wam_queue_seconds", "Time that a plan request waited", buckets=_SECONDS, registry=registry
        )
        self.plan_seconds = Histogram(
            "wam_plan_seconds",
            "Time to compute the chunks of a batch",
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "wam_batch_robots",
            "Robots in a batch",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=registry,
        )
        self.surprise = Histogram(
            "wam_surprise",
            "Distance of reality from imagination, 1 at the calibrated quantile",
            buckets=(0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0),
            registry=registry,
        )
        self.errors = Counter("wam_errors", "Errors sent to clients", ["code"], registry=registry)
        self.rejected = Counter("wam_rejected", "Handshakes refused, by HTTP status", ["status"], registry=registry)
        self.bytes = Counter("wam_bytes", "Bytes of messages", ["direction"], registry=registry)
        self.evictions = Counter("wam_evictions", "Windows forgotten for lack of memory", registry=registry)
        self.window_bytes = Gauge("wam_window_bytes", "Memory of the robots' windows", registry=registry)

    def page(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self._registry)
