"""Logs: one JSON object a line, of what was done and never of what was in an image."""

import json
import logging
import sys
import time

logger = logging.getLogger("kerascnn.serving")


def log(event: str, level: str = "info", **fields) -> None:
    """Log an event with its fields.

    Args:
        event: what happened, always in the same words.
        level: a level of `logging`: "info", "error".
        fields: values that JSON can write; names, numbers, never contents.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    if logger.isEnabledFor(number):
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


def write_lines(stream=None) -> None:
    """Let this package and uvicorn write to a stream, standard error by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines())
    for name, level in (("kerascnn.serving", "INFO"), ("uvicorn", "WARNING")):
        named = logging.getLogger(name)
        named.handlers[:] = [handler]
        named.setLevel(level)
        named.propagate = False
