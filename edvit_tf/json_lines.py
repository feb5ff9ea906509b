"""What is logged, as one JSON object a line."""

import json
import logging
from datetime import UTC, datetime
from typing import TextIO


class JsonLines(logging.Formatter):
    """Time (UTC), level, logger and message; the record's `fields`, a mapping, stand beside them."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        said: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        said.update(getattr(record, "fields", {}))
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def log_json(stream: TextIO, level: int = logging.INFO) -> None:
    """Have everything that is logged go to `stream` this way."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Pillow warns of what strangers' pictures hold, and goes on.
    logging.captureWarnings(True)
