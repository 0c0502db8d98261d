"""What the job's process is told by the command that starts it, which itself does without Beam and starts the sooner."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """Files as InputFile fields, Beam flags, the policy file, the run's numbers and its log's format."""

    run: str
    generation: int
    began: int
    files: list[dict]
    policy: str | None
    spool: str
    flags: list[str]
    backfill: bool = False
    log_format: str = "text"
