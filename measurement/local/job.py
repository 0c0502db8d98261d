"""The process that runs the local job: `python -m measurement.local.job` with a Job in JSON on standard input.

It says how far it is in one JSON object a line on standard output, and at last whether it came through. The engine's and
the workers' own words go to standard error.
"""

import json
import logging
import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import apache_beam as beam
from apache_beam.io.unbounded_source import ReadFromUnboundedSource
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from jobs.delivery import Delivery
from measurement import logs
from measurement.io import flow
from measurement.io.causes import cause
from measurement.io.files import FileSource
from measurement.io.input_file import InputFile
from measurement.local.prism import require_split_guard
from measurement.local.told import Job
from measurement.model import policy
from measurement.transforms.config import RunConfig
from measurement.transforms.end import End
from measurement.transforms.keyed import MACHINES
from measurement.transforms.spool import WriteSpool
from measurement.transforms.worker import settle

_TELL_SECONDS = 0.25
# A few frames a bundle, so that stages work side by side instead of in turns.
_FRAMES_A_BUNDLE = 2
_READ_SECONDS = 2.0
_POLL_SECONDS = 0.02


def pipeline(job: Job) -> beam.Pipeline:
    """The pipeline of a local run; ValueError for flags that would count wrongly."""
    options = PipelineOptions(job.flags)
    require_split_guard(options)
    rules = policy.given(job.policy and Path(job.policy))
    config = RunConfig(job.run, job.generation, job.began, rules)
    in_process = (options.view_as(StandardOptions).runner or "").endswith("PrismRunner")
    source = FileSource(job.run, [InputFile(**f) for f in job.files], rules, in_process, job.backfill)
    read = ReadFromUnboundedSource(source, _POLL_SECONDS, _FRAMES_A_BUNDLE, _READ_SECONDS)
    p = beam.Pipeline(options=options)
    rows = p | "Read" >> read | "Delivery" >> Delivery(config)
    rows | "Write" >> beam.ParDo(WriteSpool(job.spool)) | "Written" >> End()
    return p


def main() -> int:
    # Beam stops its engine when the interpreter exits, which a signal alone would not let it do.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    job = Job(**json.load(sys.stdin))
    logs.configure(job.log_format)
    logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)
    settle()
    done = threading.Event()
    teller = threading.Thread(target=_tell, args=(job.run, done), daemon=True)
    teller.start()
    try:
        result = pipeline(job).run()
        state = result.wait_until_finish()
    except (RuntimeError, ValueError, OSError) as error:
        logging.exception("the job failed")
        _say(error=cause(str(error)))
        return 1
    finally:
        done.set()
        teller.join()
        MACHINES.release(job.run)
    _say(state=str(state), **asdict(flow.PROGRESS.get(job.run, flow.Progress())))
    return 0


def _tell(run: str, done: threading.Event) -> None:
    while not done.wait(_TELL_SECONDS):
        try:
            _say(**asdict(flow.PROGRESS.get(run, flow.Progress())), taken=flow.taken(run))
        except BrokenPipeError:  # nobody listens: the run was killed, and nobody takes what this process writes
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _say(**what) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    sys.exit(main())
