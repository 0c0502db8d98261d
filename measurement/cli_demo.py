"""`measurement demo`: API and page over a local run's warehouse, for whoever sits at this machine."""

import ipaddress
import logging
import signal
import tempfile
from pathlib import Path

from measurement.failure import Failure
from measurement.serving.keys import KeyFile, KeyRing
from measurement.serving.limits import Limits
from measurement.serving.reports import Unavailable
from measurement.serving.warehouses import DuckDbReports


def demo(out: Path, host: str, port: int) -> None:
    """Until it is interrupted, with a key of sales that lives as long. Its address has the key behind ``#``, which browsers send to
    nobody, and is printed when the server listens."""
    from measurement.serving.app import create_app
    from measurement.serving.server import listen, work

    if not _loopback(host):
        raise Failure(f"--host {host}: the demo prints its key and is for this machine alone; `measurement serve` takes other addresses")
    if not (out / "warehouse.duckdb").is_file():
        raise Failure(f"--out {out}: no warehouse.duckdb there; `make run` first")
    reports = DuckDbReports(out)
    try:
        reports.check()
    except Unavailable as error:
        raise Failure(str(error)) from error
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")  # no line a request
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)  # the key's file goes then too
    with tempfile.TemporaryDirectory(prefix="measurement-demo-") as private:
        keys = Path(private, "keys.json")
        _, key = KeyFile(keys).make(None, "demo")
        listening = listen(host, port)
        at = listening.getsockname()[1]

        def made():
            app = create_app(reports, KeyRing(keys), Limits())
            print(f"Figures of {out} for ad sales, at this address in a browser of this machine; Ctrl-C ends it and its key.")
            print(f"http://{f'[{host}]' if ':' in host else host}:{at}/#key={key}", flush=True)
            return app

        try:
            work(made, listening)
        except KeyboardInterrupt:
            pass  # asked for


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
