"""The HTTP server: uvicorn, with deadlines and limits that it lacks, so that slow clients cost a socket for some seconds and no more."""

import gc
import logging
import multiprocessing
import multiprocessing.connection
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from measurement.failure import Failure
from measurement.serving.problems import MEDIA_TYPE, Problem

_BACKLOG = 2048
_OTHER_FILES = 200  # that are no client's connection
# A thread that decodes thousands of rows holds the interpreter's lock; others ask for it this often, seconds (the default is ten
# times as long, a good part of what an answer may take).
_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True)
class Deadlines:
    """Seconds that a client has to send a request's head, to ask again, and to take some of an answer that waits; bytes of a head;
    connections, beyond which the one that has waited for longest without a request is closed for the next."""

    head: float = 10
    keep_alive: float = 15
    take: float = 20
    head_bytes: int = 16_384
    connections: int = 4_000


def server(app: FastAPI, host: str, port: int, deadlines: Deadlines = Deadlines()) -> uvicorn.Server:
    """To be run; ``port`` 0 takes a free one. Forwarded addresses are not believed."""
    return uvicorn.Server(uvicorn.Config(
        app, host=host, port=port, http=protocol(deadlines), ws="none", lifespan="on", access_log=False, log_config=None,
        server_header=False, proxy_headers=False, backlog=_BACKLOG, timeout_keep_alive=deadlines.keep_alive,
        h11_max_incomplete_event_size=deadlines.head_bytes, timeout_graceful_shutdown=5))


def serve(make_app: Callable[[], FastAPI], host: str, port: int, workers: int = 1) -> None:
    """Until it is interrupted. Several ``workers`` are processes that take connections at one address; each has limits and caches of
    its own. Failure where the address is taken, or a worker ends by itself."""
    if workers == 1:
        work(make_app, listen(host, port))
        return
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(make_app, one)) for one in _listening(host, port, workers)]
    for process in processes:
        process.start()
    stopped = False

    def stop(*_) -> None:
        nonlocal stopped
        stopped = True
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    multiprocessing.connection.wait([process.sentinel for process in processes])
    ended_by_itself = not stopped
    stop()
    for process in processes:
        process.join()
    if ended_by_itself:
        raise Failure("serve: a worker ended; what it said stands above")


def listen(host: str, port: int, shared: bool = False) -> socket.socket:
    """A socket that takes connections from now on; ``port`` 0 takes a free one, ``shared`` one that others share too. Failure where the
    address is taken."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG, reuse_port=shared)
    except OSError as error:
        raise Failure(f"--host {host} --port {port}: {error.strerror or error}") from error


def _listening(host: str, port: int, workers: int) -> list[socket.socket]:
    """A socket a worker, so that the kernel deals out connections: of one socket the worker that wakes first takes most of them, and
    the others stand idle while it is late."""
    with listen(host, port) as alone:  # sockets that share a port would share it with a stranger too
        port = alone.getsockname()[1]
    return [listen(host, port, shared=True) for _ in range(workers)]


def work(make_app: Callable[[], FastAPI], listening: socket.socket) -> None:
    """One server on a socket that listens."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    sys.setswitchinterval(_SWITCH_SECONDS)
    deadlines = replace(Deadlines(), connections=min(Deadlines.connections, _files() - _OTHER_FILES))
    host, port = listening.getsockname()[:2]
    logging.getLogger("measurement.serving").info("serving at http://%s:%d", f"[{host}]" if ":" in host else host, port)
    one = server(make_app(), host, port, deadlines)
    gc.freeze()  # what is there now stays; looking through it for garbage would hold up all requests for a tenth of a second
    try:
        one.run(sockets=[listening])
    finally:
        gc.unfreeze()  # else what DuckDB made is never freed, and it says so at the end


def _files() -> int:
    """How many files and sockets this process may have open, after it has asked for all it can get."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def protocol(deadlines: Deadlines) -> type[H11Protocol]:
    """uvicorn's protocol, of one server."""
    waiting: dict[H11Protocol, None] = {}  # connections without a request, the one that waits for longest first

    class Patient(H11Protocol):
        _head = _take = None
        _head_bytes = 0

        def __init__(self, *arguments, **how) -> None:
            super().__init__(*arguments, **how)
            self.access_log = False  # uvicorn's has whole addresses, and comes with any handler of the root logger

        def connection_made(self, transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > deadlines.connections and waiting:
                next(iter(waiting))._cut()
            self._await_head()

        def connection_lost(self, exc) -> None:
            self._stop()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if not self._answering():  # h11 limits only a head that is not whole yet
                self._head_bytes += len(data)
                if self._head_bytes > deadlines.head_bytes:
                    self.send_400_response("")
                    return
            super().data_received(data)
            if self._answering():
                self._stop_head()
            elif self._head is None and not self.transport.is_closing():
                self._await_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._answering() and not self.transport.is_closing():
                waiting[self] = None

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            # Closing waits until what was written is taken, for ever if nobody takes it.
            self._await_taken()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._await_taken()

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._take is not None:
                self._take.cancel()
                self._take = None

        def send_400_response(self, msg: str) -> None:
            """What cannot be read as HTTP, or has too long a head, gets a problem document too."""
            body = Problem(400, "not-http", "The request is malformed, or its head too long.").body
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                                 % (MEDIA_TYPE.encode(), len(body), body))
            self.transport.close()

        def _cut(self) -> None:
            """Closed at once, with all that waits for it here and in the kernel."""
            if (one := self.transport.get_extra_info("socket")) is not None:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

        def _answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _await_head(self) -> None:
            waiting[self] = None
            self._head = self.loop.call_later(deadlines.head, self._cut)

        def _await_taken(self) -> None:
            if self._take is None:
                self._take = self.loop.call_later(deadlines.take, self._cut)

        def _stop_head(self) -> None:
            waiting.pop(self, None)
            self._head_bytes = 0
            if self._head is not None:
                self._head.cancel()
                self._head = None

        def _stop(self) -> None:
            self._stop_head()
            if self._take is not None:
                self._take.cancel()
                self._take = None

    return Patient
