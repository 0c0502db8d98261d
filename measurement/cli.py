"""The console command. Exit 0 on success, 1 when the thing checked does not hold, 2 on wrong use or an error."""

import dataclasses
import json
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from measurement.failure import Failure
from measurement.model.tables import LEAST_REJECT_DAYS

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False,
                  help="Counts advertising so well that money can be billed on it.")
_bookings = typer.Typer(help="What was booked, to be paced against.")
app.add_typer(_bookings, name="bookings")

_TIMES = ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%HZ", "%Y-%m-%d"]
_Out = Annotated[Path | None, typer.Option(help="local: the directory with warehouse.duckdb.", file_okay=False)]


class Profile(StrEnum):
    local = "local"
    emulators = "emulators"
    gcp = "gcp"


class LogFormat(StrEnum):
    text = "text"
    json = "json"


class Consent(StrEnum):
    drop_user = "drop_user"
    reject = "reject"


class ExportFormat(StrEnum):
    csv = "csv"
    parquet = "parquet"
    xlsx = "xlsx"


class ExportGrain(StrEnum):
    hour = "hour"
    day = "day"


_Profile = Annotated[Profile, typer.Option(help="Where: this machine's files, the cloud's emulators, or Google Cloud.")]
_Subscription = Annotated[str | None, typer.Option(help="projects/P/subscriptions/S")]
_Bigtable = Annotated[str | None, typer.Option(help="projects/P/instances/I")]
_BigQuery = Annotated[str | None, typer.Option(help="P.DATASET")]
_Policy = Annotated[Path | None, typer.Option(help="The policy file (YAML) to count by.")]
_Slo = Annotated[Path | None, typer.Option(help="The service levels' targets (YAML); config/slo.yaml without it.", dir_okay=False)]
_Engine = Annotated[str, typer.Option(help="prism, flink, dataflow, or any Beam runner; its own flags after `--`.")]


def main() -> None:
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except typer.TyperException as error:
        code = _fail(error.format_message())
    except Failure as error:
        code = _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        code = _fail("stopped")
    except BrokenPipeError:
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> int:
    print(f"measurement: {' '.join(message.split())}", file=sys.stderr)
    return 2


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def run(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(help="local: where warehouse.duckdb goes.", file_okay=False)] = None,
    input: Annotated[list[str] | None, typer.Option(help="local: a file, a directory or a glob of .avro or .jsonl files, also .gz; repeatable.")] = None,
    profile: _Profile = Profile.local,
    subscription: _Subscription = None,
    bigtable: _Bigtable = None,
    bigquery: _BigQuery = None,
    policy: _Policy = None,
    engine: _Engine = "prism",
    backfill: Annotated[bool, typer.Option("--backfill", help="local: files in any order of time; nothing in them is late, and hours close when all are read.")] = False,
    schemas: Annotated[Path | None, typer.Option(help="Cloud: a directory of writers' schemas (.avsc) beside version 1.")] = None,
    resume: Annotated[bool, typer.Option(help="Cloud: the engine has the last generation's state; it goes on.")] = False,
    until_idle: Annotated[bool, typer.Option(help="Cloud: end when nothing has come for --idle-seconds.")] = False,
    idle_seconds: Annotated[float, typer.Option(help="Cloud: an idle subscription's watermark follows the clock after so long.", min=1)] = 180.0,
    readers: Annotated[int, typer.Option(help="Cloud: readers that share the subscription.", min=1, max=1000)] = 1,
    publish_seconds: Annotated[float | None, typer.Option(help="Cloud: an open hour's row is published at most so often; 5 on Google Cloud, 0.5 with emulators.", min=0.1, max=3600)] = None,
    log_format: Annotated[LogFormat, typer.Option(help="Of the log, with a line for each hour closed or restated: local OUT/run.log, else standard error.")] = LogFormat.text,
) -> None:
    """Stream events through the job: files to their end (local), or a subscription until it is stopped (emulators, gcp)."""
    if profile is Profile.local:
        from measurement.local.run import Run

        if out is None or not input:
            raise Failure("--input and --out are needed with --profile local")
        _execute(Run(out, input, policy, engine, list(context.args), backfill=backfill, log_format=log_format))
        return
    if backfill:
        raise Failure("--backfill: is of files, with --profile local; `measurement rebuild` makes hours anew from a cloud's archive")
    from measurement import cli_cloud

    cli_cloud.run(
        profile, subscription, bigtable, bigquery, log_format, policy=policy, engine=engine, flags=list(context.args), schemas=schemas,
        resume=resume, until_idle=until_idle, idle_after=idle_seconds, readers=readers, publish_seconds=publish_seconds)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def rebuild(
    context: typer.Context,
    from_: Annotated[datetime, typer.Option("--from", help="The first hour, UTC.", formats=_TIMES)],
    to: Annotated[datetime, typer.Option("--to", help="The hour behind the last, UTC.", formats=_TIMES)],
    profile: _Profile = Profile.gcp,
    subscription: _Subscription = None,
    bigtable: _Bigtable = None,
    bigquery: _BigQuery = None,
    policy: _Policy = None,
    engine: _Engine = "prism",
) -> None:
    """Make hours anew from the archive of what was received, under a new generation."""
    from measurement import cli_cloud

    if (from_, to) != tuple(t.replace(minute=0, second=0) for t in (from_, to)) or from_ >= to:
        raise Failure(f"--from {from_:%Y-%m-%dT%H:%M:%SZ} --to {to:%Y-%m-%dT%H:%M:%SZ}: whole hours, the first before the second")
    start, stop = (round(t.replace(tzinfo=UTC).timestamp()) * 1_000_000 for t in (from_, to))
    cli_cloud.rebuild(_on_cloud(profile, "rebuild"), subscription, bigtable, bigquery, start, stop, policy=policy, engine=engine,
                      flags=list(context.args))


@app.command()
def provision(
    project: Annotated[str, typer.Option(help="The Google Cloud project.")],
    profile: _Profile = Profile.gcp,
    topic: Annotated[str, typer.Option(help="The topic's name.")] = "ad-events",
    subscription: Annotated[str, typer.Option(help="The subscription's name.")] = "ad-events-measurement",
    instance: Annotated[str, typer.Option(help="The Bigtable instance's name; it must exist on Google Cloud.")] = "measurement",
    dataset: Annotated[str, typer.Option(help="The BigQuery dataset's name.")] = "ads",
    archive: Annotated[str | None, typer.Option(help="Where what is received is kept: gs://BUCKET/DIRECTORY; with emulators any directory.")] = None,
    location: Annotated[str, typer.Option(help="The BigQuery dataset's location.")] = "US",
    ack_seconds: Annotated[int, typer.Option(help="After so long what a dead worker held comes back.", min=10, max=600)] = 60,
    reject_days: Annotated[int | None, typer.Option(help="So many days rejects are kept in BigQuery, at least 8; without it as before, 30 in a new table.", min=LEAST_REJECT_DAYS, max=3650)] = None,
) -> None:
    """Make topic, subscription, archive, Bigtable tables, BigQuery dataset, tables and views; safe to run again."""
    from measurement import cli_cloud

    cli_cloud.provision(_on_cloud(profile, "provision"), project, topic, subscription, instance, dataset, archive, location, ack_seconds,
                        reject_days)


@app.command()
def publish(
    input: Annotated[list[str], typer.Option(help="A file, a directory or a glob of .avro or .jsonl files, also .gz; repeatable.")],
    topic: Annotated[str, typer.Option(help="projects/P/topics/T")],
    profile: _Profile = Profile.gcp,
    batch: Annotated[int, typer.Option(help="Events a message.", min=1, max=100_000)] = 1,
    audits: Annotated[bool, typer.Option(help="Say on the topic TOPIC-audits what was sent, by source and minute.")] = True,
) -> None:
    """Send event files to a topic, one event or --batch N a message, and say how many."""
    from measurement import cli_cloud

    cli_cloud.publish(_on_cloud(profile, "publish"), input, topic, batch, audits)


@app.command()
def replay(
    out: _Out = None,
    reason: Annotated[list[str] | None, typer.Option(help="Only rejects of this reason; repeatable.")] = None,
    policy: _Policy = None,
    profile: _Profile = Profile.local,
    subscription: _Subscription = None,
    bigtable: _Bigtable = None,
    bigquery: _BigQuery = None,
) -> None:
    """Bring rejects, after a fix, back through the job; nothing is counted twice."""
    from measurement.local import replay as replays
    from measurement.local.run import Run
    from measurement.local.warehouse import WarehouseError
    from measurement.model.events import REJECTED

    if unknown := set(reason or ()) - REJECTED:
        raise Failure(f"--reason {sorted(unknown)[0]}: not one of {', '.join(sorted(REJECTED))}")
    if profile is not Profile.local:
        from measurement import cli_cloud

        cli_cloud.replay(profile, subscription, bigtable, bigquery, reason or [])
        return
    try:
        prepared = replays.prepare(_warehouse(out), reason or [])
    except WarehouseError as error:
        raise Failure(str(error)) from error
    if prepared is None:
        print("no rejects to replay")
        return
    path, events = prepared
    print(f"replaying {events:,} rejects")
    try:
        _execute(Run(out, [], policy, again=True, replays=[path]))
    except BaseException:
        path.unlink()  # what did not come through is no input of later runs
        raise


def _execute(what) -> None:
    from measurement.local import summary
    from measurement.local.run import RunError
    from measurement.local.run import run as execute

    with summary.display() as show:
        try:
            execute(what, show.progress, show.say)
        except RunError as error:
            raise Failure(str(error)) from error
    summary.show(_warehouse(what.out), show.last)


@app.command()
def simulate(
    events: Annotated[int, typer.Option(help="Events in the log, resends and broken ones included.")],
    out: Annotated[Path, typer.Option(help="Where events*.avro, bookings.csv and truth.json go.", file_okay=False)],
    seed: Annotated[int, typer.Option(help="Same seed and flags, same bytes.")] = 0,
    start: Annotated[datetime, typer.Option(help="The log's first hour, UTC.", formats=["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"])] = datetime(2026, 3, 2),
    hours: Annotated[int, typer.Option(help="Hours that the log spans.")] = 24,
    files: Annotated[int, typer.Option(help="At most so many files.")] = 3,
    jitter_seconds: Annotated[float | None, typer.Option(help="Disorder of arrival.")] = None,
    late_rate: Annotated[float | None, typer.Option(help="Mobile events that come hours late.")] = None,
    resend_rate: Annotated[float | None, typer.Option(help="Events sent again.")] = None,
    conflict_rate: Annotated[float | None, typer.Option(help="Ids sent again with other content.")] = None,
    orphan_rate: Annotated[float | None, typer.Option(help="Follow-ups whose impression never comes.")] = None,
    robot_rate: Annotated[float | None, typer.Option(help="Impressions of declared robots.")] = None,
    order_repeat_rate: Annotated[float | None, typer.Option(help="Orders reported twice.")] = None,
    missing_rate: Annotated[float | None, typer.Option(help="Events without a required field.")] = None,
    unknown_type_rate: Annotated[float | None, typer.Option(help="Events of unknown type.")] = None,
    bad_value_rate: Annotated[float | None, typer.Option(help="Events with a bad value.")] = None,
    future_rate: Annotated[float | None, typer.Option(help="Events ahead of their receipt.")] = None,
    too_late_rate: Annotated[float | None, typer.Option(help="Events older than the dedup horizon.")] = None,
    undecodable_rate: Annotated[float | None, typer.Option(help="Datums that are none.")] = None,
    policy: Annotated[Path | None, typer.Option(help="The policy file (YAML) that the truth's credits follow.")] = None,
    screening: Annotated[bool, typer.Option("--screening", help="Also traffic to be screened; writes policy.yaml and its networks.")] = False,
    consent: Annotated[Consent, typer.Option(help="With --screening: what becomes of events without consent.")] = Consent.drop_user,
) -> None:
    """Write a realistic event log, what was booked of it and its truth; each kind of trouble is turned off with 0, or up."""
    given = {k: v for k, v in locals().items() if v is not None and k != "out"}
    from measurement.simulate import SimulateOptions
    from measurement.simulate import simulate as write

    try:
        done = write(SimulateOptions(**{**given, "start": start.replace(tzinfo=UTC)}), out, overwrite=True)
    except ValueError as error:
        raise Failure(str(error)) from error
    except OSError as error:
        raise Failure(f"--out {out}: {error.strerror or error}") from error
    print(f"{done.events:,} events ({done.bytes / 1e6:,.0f} MB) in {len(done.files)} files, "
          f"{done.delivery_rows:,} delivery rows expected: {done.truth}")


@app.command()
def reconcile(out: _Out = None, profile: _Profile = Profile.local, subscription: _Subscription = None,
              bigtable: _Bigtable = None, bigquery: _BigQuery = None) -> None:
    """Balance the ledger, hour by hour; exit 1 if it does not."""
    from measurement.local import summary

    if profile is Profile.local:
        from measurement.local.reconcile import reconcile as compare

        result = _reading(compare, out)
    else:
        from measurement import cli_cloud

        result = cli_cloud.reconcile(profile, subscription, bigtable, bigquery)
    summary.show_reconciled(result)
    raise typer.Exit(0 if result.holds else 1)


@app.command()
def status(out: _Out = None, json_: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
           profile: _Profile = Profile.local, subscription: _Subscription = None, bigtable: _Bigtable = None,
           bigquery: _BigQuery = None, slo: _Slo = None) -> None:
    """The service levels now, and what the tables hold; exit 1 if a level is broken, the job failed or its ledger does not balance."""
    from measurement import cli_monitor
    from measurement.monitors.show import show

    levels, now = cli_monitor.slo(slo), time.time_ns() // 1_000
    if profile is Profile.local:
        from measurement.local.status import status as look

        found = _reading(lambda warehouse: look(warehouse, levels, now), out)
    else:
        from measurement import cli_cloud

        found = cli_cloud.status(profile, subscription, bigtable, bigquery, levels, now)
    if json_:
        print(json.dumps(dataclasses.asdict(found) | {"healthy": found.healthy}, default=str))
    else:
        show(found)
    raise typer.Exit(0 if found.healthy else 1)


@app.command()
def monitor(
    out: _Out = None,
    profile: _Profile = Profile.local,
    subscription: _Subscription = None,
    bigtable: _Bigtable = None,
    bigquery: _BigQuery = None,
    slo: _Slo = None,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1, max=3600)] = 60.0,
    listen: Annotated[str, typer.Option(help="HOST:PORT where /metrics is served; port 0 picks one.")] = "127.0.0.1:9464",
    probe: Annotated[bool, typer.Option(help="Cloud: send a probe each minute and look for it at both far ends.")] = True,
    webhook: Annotated[list[str] | None, typer.Option(help="Where alerts are sent as JSON; repeatable.")] = None,
    pagerduty_key_file: Annotated[Path | None, typer.Option(help="A file with the routing key of a PagerDuty service.", dir_okay=False)] = None,
    runbooks: Annotated[str, typer.Option(help="The web address of this project's files, for links to runbooks.")] = "",
    deadman: Annotated[str | None, typer.Option(help="An address that hears of each whole look; its silence is an alarm.")] = None,
    looks: Annotated[int | None, typer.Option(help="End after so many looks, with 1 if a level is broken.", min=1)] = None,
    log_format: Annotated[LogFormat, typer.Option(help="Of the log, on standard error.")] = LogFormat.text,
) -> None:
    """Judge the service levels again and again: metrics, table sla, alerts, a dead-man's signal, probes."""
    from measurement import cli_monitor, logs

    logs.configure(log_format)
    levels, told, at = cli_monitor.slo(slo), cli_monitor.receivers(webhook or [], pagerduty_key_file, runbooks), cli_monitor.listening(listen)
    if profile is Profile.local:
        from measurement.local.place import LocalPlace

        where = _reading(lambda warehouse: LocalPlace(warehouse.there()), out)
    else:
        from measurement import cli_cloud

        where = cli_cloud.place(profile, subscription, bigtable, bigquery)
    raise typer.Exit(cli_monitor.serve(where, levels, told, deadman, at, every, looks, probe and profile is not Profile.local))


@app.command()
def lists(policy: _Policy = None, json_: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """The screening lists in force, their versions and ages; warns of those past 90 days."""
    from measurement.local import lists as screening
    from measurement.model.policy_file import PolicyError

    try:
        found = screening.lists_in_force(policy)
    except PolicyError as error:
        raise Failure(str(error)) from error
    (screening.show_json if json_ else screening.show)(found, datetime.now(UTC).date())


@app.command()
def head(out: _Out = None, rows: Annotated[int, typer.Option(help="So many of the latest rows.", min=1, max=1000)] = 10) -> None:
    """Print the first delivery rows of a local run."""
    from measurement.local import summary

    _reading(lambda warehouse: summary.show_head(warehouse, rows), out)


@app.command()
def query(
    sql: Annotated[str | None, typer.Argument(help="One SELECT in BigQuery's SQL over the tables and views.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option(help="Or a file with it.", show_default=False)] = None,
    out: _Out = None,
    csv: Annotated[bool, typer.Option("--csv", help="As csv, as it is where it goes into a file.")] = False,
) -> None:
    """Ask a local run's warehouse a question, as docs/cookbook.md has them."""
    from measurement import cli_query

    _reading(lambda warehouse: cli_query.show(warehouse, sql, file, csv), out)


@app.command()
def paths(
    out: _Out = None,
    policy: _Policy = None,
    advertiser: Annotated[str | None, typer.Option(help="Only this advertiser; all without it.")] = None,
    from_: Annotated[datetime | None, typer.Option("--from", help="Conversions from then on, UTC.", formats=_TIMES)] = None,
    to: Annotated[datetime | None, typer.Option(help="Conversions before then, UTC.", formats=_TIMES)] = None,
    order: Annotated[int, typer.Option(help="Of the Markov chain: 1 to 3.")] = 1,
    top: Annotated[int, typer.Option(help="So many campaigns, those with most last-touch credit; the others are summed.", min=1)] = 20,
    html: Annotated[Path | None, typer.Option(help="Where the page goes; paths.html in --out without it.")] = None,
    csv: Annotated[Path | None, typer.Option(help="All campaigns and models as rows, into this file.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Compare attribution models over stored paths, data-driven beside rule-based; exit 1 if nothing converted."""
    from measurement.paths import command

    def read():
        from measurement.local import facts

        return _reading(lambda warehouse: facts.read(warehouse, rules), out)

    rules = _rules(policy)
    since, until = (None if t is None else round(t.replace(tzinfo=UTC).timestamp()) * 1_000_000 for t in (from_, to))
    if not _warehouse(out).out.is_dir():
        raise Failure(f"--out {out}: there is no such directory")
    html = out / "paths.html" if html is None else html
    raise typer.Exit(command.run(read, rules, advertiser=advertiser, since=since, until=until, order=order, top=top, html=html,
                                 csv=csv, as_json=json_))


@app.command()
def methodology(policy: _Policy = None) -> None:
    """Print the description of methodology that an auditor asks for, made from the rules, the policy and the lists in force."""
    from measurement.reporting.methodology import text

    rules = _rules(policy)
    print(text(rules, rules.screening.lists), end="")


def _rules(policy: Path | None):
    from measurement.model import policy as policies

    try:
        return policies.given(policy)
    except policies.PolicyError as error:
        raise Failure(str(error)) from error


@app.command()
def explain(
    event_id: Annotated[str, typer.Argument(help="The event's event_id, as it was sent.", metavar="EVENT_ID")],
    out: _Out = None,
    policy: _Policy = None,
    json_: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Tell what became of one event and why, rule by rule; exit 1 if it was not received or the tables say otherwise."""
    from measurement.explain import command
    from measurement.local import explain as local
    from measurement.local.warehouse import WarehouseError

    rules = _rules(policy)
    try:
        code = command.run(lambda: local.reading(_warehouse(out), rules), event_id, rules, as_json=json_)
    except WarehouseError as error:
        raise Failure(str(error)) from error
    raise typer.Exit(code)


@_bookings.command("load")
def load_bookings(
    file: Annotated[Path, typer.Argument(help="A .csv with a header or a .jsonl, with the columns of the table bookings.", metavar="FILE")],
    out: _Out = None,
    profile: _Profile = Profile.local,
    bigquery: _BigQuery = None,
) -> None:
    """Take a file's bookings, all or none; one that is loaded again with other content replaces what it said."""
    from measurement import cli_bookings

    cli_bookings.load_bookings(file, profile, out, bigquery)


@app.command("time-zone")
def time_zone(
    zone: Annotated[str, typer.Argument(help="IANA's name of it, such as Europe/Berlin.", metavar="ZONE")],
    advertiser: Annotated[str | None, typer.Option(help="Whose days; without it all advertisers' that have no zone of their own.")] = None,
    out: _Out = None,
    profile: _Profile = Profile.local,
    bigquery: _BigQuery = None,
) -> None:
    """Set the time zone whose days the views' daily figures are of."""
    from measurement import cli_bookings

    cli_bookings.set_time_zone(zone, advertiser, profile, out, bigquery)


@app.command()
def export(
    out: Annotated[str, typer.Option(help="Where the files go: a directory, gs://BUCKET/DIRECTORY, or another URL that fsspec knows.")],
    advertiser: Annotated[str | None, typer.Option(help="Whose figures.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Of every advertiser; cut off, the same command goes on.")] = False,
    from_: Annotated[datetime | None, typer.Option("--from", help="The first hour or day, UTC.", formats=_TIMES)] = None,
    to: Annotated[datetime | None, typer.Option(help="The hour or day behind the last, UTC.", formats=_TIMES)] = None,
    yesterday: Annotated[bool, typer.Option("--yesterday", help="The last whole UTC day, instead of --from and --to.")] = False,
    format: Annotated[ExportFormat, typer.Option(help="Of the files.")] = ExportFormat.csv,
    table: Annotated[list[str] | None, typer.Option(help="delivery or attribution; repeatable; both without it.")] = None,
    grain: Annotated[ExportGrain, typer.Option(help="A row is an hour's or a UTC day's.")] = ExportGrain.hour,
    campaign: Annotated[str | None, typer.Option(help="Only this campaign's rows.")] = None,
    small_cells: Annotated[int, typer.Option(help="Fewer conversions are not told apart from others; 0: all are.", min=0)] = 10,
    since: Annotated[list[str] | None, typer.Option(help="An earlier export's manifest: also write what changed since and why; repeatable.")] = None,
    profile: _Profile = Profile.local,
    warehouse: Annotated[Path | None, typer.Option(help="local: the directory with warehouse.duckdb.", file_okay=False)] = None,
    subscription: _Subscription = None,
    bigtable: _Bigtable = None,
    bigquery: _BigQuery = None,
) -> None:
    """Write delivery and attribution as csv, parquet or xlsx, each file with a manifest of what it holds (docs/exports.md)."""
    from measurement import cli_exports

    cli_exports.export(out, advertiser, all_, from_, to, yesterday, format, table or [], grain, campaign, small_cells, since or [],
                       profile, warehouse, bigquery)


_Keys = Annotated[Path, typer.Option("--keys", help="The file of keys.", dir_okay=False)]


@app.command()
def serve(
    keys: _Keys,
    out: _Out = None,
    profile: _Profile = Profile.local,
    bigtable: _Bigtable = None,
    bigquery: Annotated[str | None, typer.Option(help="P.DATASET, for what Bigtable does not serve: invalid traffic.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen at; keys travel readable, so other than 127.0.0.1 only behind TLS.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8080,
    rate: Annotated[float, typer.Option(help="Requests a second of a key.", min=0.1)] = 50.0,
    burst: Annotated[int, typer.Option(help="Requests of a key at once.", min=1)] = 100,
    workers: Annotated[int, typer.Option(help="Processes that answer; limits are each one's.", min=1, max=64)] = 1,
) -> None:
    """Serve the report API over a local run's warehouse, or Bigtable, until it is stopped."""
    from measurement import cli_reports
    from measurement.serving.limits import Limits

    cli_reports.serve(profile, out, bigtable, bigquery, keys, host, port, Limits(rate, burst), workers)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The directory with warehouse.duckdb, as `make run` leaves it.", file_okay=False)] = Path("out/demo"),
    host: Annotated[str, typer.Option(help="An address of this machine's own.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8080,
) -> None:
    """Serve the page for ad sales over a local run's warehouse, with a key of its own, until it is stopped."""
    from measurement import cli_demo, cli_reports

    with cli_reports.installed("demo"):
        cli_demo.demo(out, host, port)


keys_app = typer.Typer(help="Make, list and revoke keys of the report API.")
app.add_typer(keys_app, name="keys")


@keys_app.command("make")
def keys_make(
    keys: _Keys,
    advertiser: Annotated[str | None, typer.Option(help="The advertiser_id whose figures it opens.")] = None,
    sales: Annotated[bool, typer.Option("--sales", help="It opens those of all advertisers.")] = False,
    expires: Annotated[datetime | None, typer.Option(help="Until when it holds, UTC.", formats=_TIMES)] = None,
    name: Annotated[str, typer.Option(help="Whom it was given to.")] = "",
) -> None:
    """Make a key and print it, this once."""
    from measurement import cli_reports

    cli_reports.make(keys, advertiser, sales, name, expires)


@keys_app.command("list")
def keys_list(keys: _Keys) -> None:
    """Print id, state, owner, dates and name of each."""
    from measurement import cli_reports

    cli_reports.show(keys)


@keys_app.command("revoke")
def keys_revoke(id_: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` prints it.")], keys: _Keys) -> None:
    """Make a key invalid at once, also for a server that runs."""
    from measurement import cli_reports

    cli_reports.revoke(keys, id_)


def _on_cloud(profile: Profile, command: str) -> Profile:
    if profile is Profile.local:
        raise Failure(f"--profile local: {command} is for emulators or gcp")
    return profile


def _warehouse(out: Path | None):
    if out is None:
        raise Failure("--out is needed with --profile local")
    from measurement.local.warehouse import Warehouse

    return Warehouse(out)


def _reading(act, out: Path | None):
    from measurement.local.warehouse import WarehouseError

    try:
        return act(_warehouse(out))
    except WarehouseError as error:
        raise Failure(str(error)) from error
    except OSError as error:
        raise Failure(f"{error.filename or out}: {error.strerror}") from error


if __name__ == "__main__":
    main()
