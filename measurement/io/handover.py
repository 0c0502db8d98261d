"""One reader of a source going on where another stood, with what that one has open.

Beam keeps a reader between two bundles in the DoFn that drove it, and an engine that begins the next bundle before it has
finalized the last, as Prism does, often drives that with another DoFn: then a reader is made anew from its mark, while the
old one stays in memory with all that it holds. So the last reader of a source hands over to the next.
"""

import threading

_lock = threading.Lock()
_last: dict[tuple, object] = {}


def take_over(key: tuple, reader, mark):
    """The reader that stands at ``mark`` exactly, now abandoned in favour of ``reader``; None if none does.

    Readers have ``abandon(mark)``: whether they stand there; if not, they close what they have open.
    """
    with _lock:
        last = _last.get(key)
        _last[key] = reader
    if last is None or last is reader:
        return None
    return last if last.abandon(mark) else None


def let_go(key: tuple, reader) -> bool:
    """Whether the reader was the last, which it then is no more."""
    with _lock:
        if _last.get(key) is not reader:
            return False
        del _last[key]
        return True
