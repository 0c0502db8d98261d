"""What a process logs, and how: lines of text, or of JSON for machines, by Python's own logging to standard error.

Our own loggers say what they have to at INFO, all others (Beam says much) at WARNING. A worker elsewhere, which nobody
configures for us, logs the same messages in its runner's way.
"""

import logging
import time
from datetime import UTC, datetime

import orjson

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}  # what every record has


class Json(logging.Formatter):
    """A record as an object a line: time (RFC 3339, UTC), level, logger, message, the fields given as ``extra``, and exception
    where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": at, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line |= {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def text() -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    return formatter


def configure(form: str) -> None:
    """Of this whole process: ``form`` is text or json."""
    handler = logging.StreamHandler()
    handler.setFormatter({"text": text, "json": Json}[form]())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("measurement").setLevel(logging.INFO)
