"""What a server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The counters of one application, in a registry of their own.

    Labels are names of models that are served, of protocols and of status codes:
    never what a client makes up.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self):
        self.registry = CollectorRegistry()
        own = {"registry": self.registry, "namespace": "kerascnn"}
        self.requests = Counter(
            "requests",
            "Requests that were answered.",
            ["protocol", "model", "code"],
            **own,
        )
        self.seconds = Histogram(
            "request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["protocol", "model"],
            buckets=SECONDS,
            **own,
        )
        self.images = Counter(
            "images", "Images that were classified.", ["protocol", "model"], **own
        )
        self.in_progress = 0  # requests that are being answered
        shown = Gauge(
            "requests_in_progress", "Requests that are being answered.", **own
        )
        shown.set_function(lambda: self.in_progress)
        self.batch_images = Histogram(
            "batch_images",
            "Images that were computed at once.",
            ["model"],
            buckets=IMAGES,
            **own,
        )
        self.waiting = Gauge(
            "queue_images", "Images that wait.", ["model", "version"], **own
        )
        self.available = Gauge(
            "version_available", "1: the version answers.", ["model", "version"], **own
        )
        self.load_seconds = Gauge(
            "load_seconds", "Seconds that the last load took.", ["model"], **own
        )
        self.load_failures = Counter(
            "load_failures", "Loads that failed.", ["model"], **own
        )

    def render(self, models: dict) -> bytes:
        """Return all values in the text format of Prometheus.

        Args:
            models: those of a `Repository`, whose queues are read now.
        """
        self.waiting.clear()
        self.available.clear()
        for model in models.values():
            for number, served in model.versions.items():
                waiting = sum(batcher.waiting for batcher in served.batchers.values())
                self.waiting.labels(model.name, number).set(waiting)
                self.available.labels(model.name, number).set(1)
        return generate_latest(self.registry)
