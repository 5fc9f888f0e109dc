"""What a server tells: log lines, and what it counts for Prometheus.

A log line is a JSON object of what was done, and never of what was in an image.
"""

import json
import logging
import sys
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

logger = logging.getLogger("kerascnn.serving")

QUIET = 10  # seconds in which an error that comes again is not logged
KNOWN = 1000  # errors
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PROTOCOL, MODEL, VERSION = ("protocol", "model"), ("model",), ("model", "version")


class Metrics:
    """The counters of one application, in a registry of their own.

    Labels are names of models that are served, of protocols and of status codes:
    never what a client makes up.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self):
        self.registry = CollectorRegistry()

        def new(kind, name, told, labels=(), **more):
            return kind(
                name, told, labels, namespace="kerascnn", registry=self.registry, **more
            )

        told = "Requests that were answered."
        self.requests = new(Counter, "requests", told, (*PROTOCOL, "code"))
        told = "Seconds from a request's headers to the end of its answer."
        self.seconds = new(
            Histogram, "request_seconds", told, PROTOCOL, buckets=SECONDS
        )
        self.images = new(Counter, "images", "Images that were classified.", PROTOCOL)
        told = "Requests that are being answered."
        self.in_progress = new(Gauge, "requests_in_progress", told)
        told = "Images that were computed at once."
        self.batch_images = new(Histogram, "batch_images", told, MODEL, buckets=IMAGES)
        self.waiting = new(Gauge, "queue_images", "Images that wait.", VERSION)
        told = "1: the version answers."
        self.available = new(Gauge, "version_available", told, VERSION)
        told = "Seconds that the last load took."
        self.load_seconds = new(Gauge, "load_seconds", told, MODEL)
        self.load_failures = new(Counter, "load_failures", "Loads that failed.", MODEL)

    def render(self, models: dict) -> bytes:
        """Return all values as Prometheus reads them, the queues of `models` as now."""
        self.waiting.clear()
        self.available.clear()
        for model in models.values():
            for number, served in model.versions.items():
                queues = served.batchers.values()
                waiting = sum(b.waiting + b.large.waiting for b in queues)
                self.waiting.labels(model.name, number).set(waiting)
                self.available.labels(model.name, number).set(1)
        return generate_latest(self.registry)


def log(event: str, level: str = "info", **fields) -> None:
    """Log an event, always in the same words, with values that JSON can write."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logger.log(number, event, extra={"fields": fields})


class Lines(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line: time (UTC), level, event, and the event's fields."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Once(logging.Filter):
    """Lets a warning or an error pass once in ten seconds, with how often it came."""

    def __init__(self):
        super().__init__()
        self.seen: dict[tuple, list] = {}  # time of the last line, and repeats since

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written."""
        if record.levelno < logging.WARNING:
            return True
        kind = record.exc_info[0] if record.exc_info else None
        fields = getattr(record, "fields", {})
        key = (record.name, str(record.msg), kind, str(fields))
        last = self.seen.get(key)
        if last and record.created - last[0] < QUIET:
            last[1] += 1
            return False
        if last and last[1]:
            record.fields = {**fields, "repeated": last[1]}
        if len(self.seen) > KNOWN:
            self.seen.clear()
        self.seen[key] = [record.created, 0]
        return True


def write_lines(stream=None) -> None:
    """Let this package and uvicorn write to a stream, standard error by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines())
    handler.addFilter(Once())
    levels = {"kerascnn.serving": "INFO", "uvicorn": "WARNING", "asyncio": "WARNING"}
    for name, level in levels.items():
        named = logging.getLogger(name)
        named.handlers[:] = [handler]
        named.setLevel(level)
        named.propagate = False
