"""Why a job failed, in the one line of a worker's traceback that a user can act on."""

import re

_NAMED = r"(?:UnreadableInput|SinkError|BigQueryError|StateLost|Superseded): ([^\n]+)"
_ACTIONABLE = _NAMED, r"(No space left on device[^\n]*)", r"OSError: ([^\n]+)"


def cause(text: str) -> str:
    for pattern in _ACTIONABLE:
        if found := re.search(pattern, text):
            return re.sub(r" \[while running.*", "", found[1])
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "the job failed")
