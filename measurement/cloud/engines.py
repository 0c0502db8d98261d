"""Which engine runs a job, by which of Beam's flags, and what follows for the source."""

import re
from dataclasses import dataclass

from measurement.local.prism import STAY
from measurement.local.run import check_flags, engine_flags

_INTERVAL_MS = 2_000  # Flink's checkpoints, unless said otherwise
_DEFAULT_HOLD = 30.0  # s, of an engine whose checkpoints are not known


@dataclass(frozen=True)
class Engine:
    """Beam's flags; whether the workers share this process; for how long (s) finalized marks are held (see Leases), and
    how long (s) a bundle may read."""

    flags: list[str]
    in_process: bool
    hold: float
    read_seconds: float


def engine(name: str, flags: list[str], say) -> Engine:
    """``flags`` are the user's own, which come last. RunError for an engine or flag that Beam does not have."""
    name = name.lower().removesuffix("runner")
    given = {flag.partition("=")[0] for flag in flags}
    if "--job_endpoint" in given:  # a job server that runs already is used as it is
        ours = ["--streaming", STAY] if "--runner" in given else ["--runner=PortableRunner", "--streaming", STAY]
        return _checked(ours, flags, _hold(flags, _DEFAULT_HOLD), 0.5)
    if name == "prism":
        return Engine(engine_flags(name, flags, say), "--environment_type" not in given, 0.0, 1.0)
    if name == "flink":
        ours = ["--runner=FlinkRunner", "--streaming", STAY, "--finish_bundle_before_checkpointing"]
        if "--checkpointing_interval" not in given:
            ours.append(f"--checkpointing_interval={_INTERVAL_MS}")
        return _checked(ours, flags, _hold([*ours, *flags], _DEFAULT_HOLD), 0.5)
    if name == "dataflow":  # commits a bundle, its state and its outputs together
        ours = ["--runner=DataflowRunner", "--streaming", "--enable_streaming_engine", "--experiments=use_runner_v2",
                "--no_save_main_session"]
        return _checked(ours, flags, 0.0, 5.0)
    return Engine(engine_flags(name, flags, say), False, _DEFAULT_HOLD, 0.5)


def _checked(ours: list[str], flags: list[str], hold: float, read_seconds: float) -> Engine:
    check_flags(ours, flags)
    return Engine([*ours, *flags], False, hold, read_seconds)


def _hold(flags: list[str], default: float) -> float:
    """Two checkpoint intervals and a half: finalization runs ahead of a checkpoint by one at most."""
    for flag in reversed(flags):
        if found := re.fullmatch(r"--checkpointing_interval=(\d+)", flag):
            return 2.5 * int(found[1]) / 1000
    return default
