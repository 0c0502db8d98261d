"""The Flex Template, and the job as Dataflow gets it: described by Beam's own runner, with nothing sent to Google."""

import json
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import apache_beam as beam
import pytest
from apache_beam.io.localfilesystem import LocalFileSystem
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2 as api
from apache_beam.runners.dataflow.internal import apiclient
from google.cloud.dataflow_v1beta3.types import TemplateMetadata
from google.protobuf import json_format
from typer.main import get_command

from jobs.dataflow import launcher
from jobs.stream import stream
from measurement import cli
from measurement.cloud.engines import engine
from measurement.cloud.places import CloudError, named
from measurement.columnar.deltas import Deltas
from measurement.columnar.intake import Intake
from measurement.io.endpoints import Endpoints
from measurement.io.intake_coder import IntakeCoder
from measurement.io.pubsub.source import PubSubSource
from measurement.model.policy import Policy, load
from measurement.model.policy_file import PolicyError
from measurement.state.ring import SLOTS
from measurement.transforms.config import RunConfig
from test_screening import activity
from test_state import batch, impression, one_row, T

HERE = Path(launcher.__file__).parent
SUBSCRIPTION, INSTANCE, DATASET = "projects/demo/subscriptions/ad-events", "projects/demo/instances/measurement", "demo.ads"
PLACES = [f"--subscription={SUBSCRIPTION}", f"--bigtable={INSTANCE}", f"--bigquery={DATASET}"]
IMAGE = "europe-docker.pkg.dev/demo/images/measurement:1"
# What the template service adds, as its documentation and Beam's name them.
SERVICE = ["--runner=DataflowRunner", "--project=demo", "--region=europe-west1", "--job_name=ads",
           "--temp_location=gs://none/tmp", "--staging_location=gs://none/staging",
           "--template_location=gs://none/launch/job_object",
           f"--sdk_container_image={IMAGE}", "--max_num_workers=4"]


# --- The template --------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def metadata() -> dict:
    return json.loads((HERE / "metadata.json").read_text())


@pytest.fixture(scope="module")
def parameters(metadata) -> dict[str, dict]:
    return {parameter["name"]: parameter for parameter in metadata["parameters"]}


def options() -> dict:
    """The options of `measurement run`, by name."""
    return {option.name: option for option in get_command(cli.app).commands["run"].params}


def test_the_metadata_is_of_the_services_form_and_says_that_the_job_streams_exactly_once(metadata):
    told = json_format.ParseDict(metadata, TemplateMetadata.pb(TemplateMetadata()))  # refuses a field that it does not have
    assert (told.streaming, told.supports_exactly_once, told.supports_at_least_once) == (True, True, False)


def test_the_templates_parameters_are_the_jobs_options(parameters):
    of_beam = {"sdk_container_image"}
    assert set(parameters) - of_beam == set(launcher.PARAMETERS)
    for name in launcher.PARAMETERS:
        default = parameters[name].get("defaultValue")
        own = options()[name].default
        assert default == (None if own is None else f"{own:g}" if isinstance(own, float) else str(own).lower()), name
    assert {name for name, it in parameters.items() if not it["isOptional"]} == {
        "subscription", "bigtable", "bigquery", "sdk_container_image"}


SAMPLES = {  # accepted, refused
    "subscription": ([SUBSCRIPTION, "projects/p/subscriptions/a.b~c"],
                     ["ad-events", "projects/p/topics/t-1", f"{SUBSCRIPTION}/", ""]),
    "bigtable": ([INSTANCE], ["measurement", "projects/p/instances/", "projects/p/instances/Upper-1"]),
    "bigquery": ([DATASET, "demo-1.ads_2"], ["ads", "demo:ads", "demo.ads-1"]),
    "sdk_container_image": ([IMAGE, "gcr.io/p/i@sha256:" + "0" * 64], ["no tag", "gcr.io/p/i"]),
    "policy": (["gs://b/policy.yaml"], ["policy.yaml", "gs://"]),
    "schemas": (["gs://b/schemas/"], ["schemas"]),
    "resume": (["true", "false"], ["yes", ""]),
    "readers": (["1", "64", "1000"], ["0", "1001", "x"]),
    "idle_seconds": (["1", "180"], ["0", "-1"]),
}


def test_the_templates_patterns_take_and_refuse_what_the_job_does(parameters, monkeypatch):
    assert set(SAMPLES) == set(parameters)
    for name, (good, bad) in SAMPLES.items():
        [pattern] = parameters[name]["regexes"]
        assert [s for s in good + bad if re.fullmatch(pattern, s)] == good, name
        for sample in good + bad if name in ("subscription", "bigtable", "bigquery") else ():
            taken = True
            try:
                named(f"--{name}", sample)
            except CloudError:
                taken = False
            assert taken == (sample in good), (name, sample)
        if name in ("readers", "idle_seconds"):
            for sample in good + bad:
                code, what, *_ = launched(monkeypatch, *PLACES, f"--{name}={sample}")
                assert (code == 0) == (what is not None) == (sample in good), (name, sample)


# --- The launcher --------------------------------------------------------------------------------------------

class Kept(LocalFileSystem):
    """kept://… is a local path, behind a scheme as Cloud Storage's is."""

    @classmethod
    def scheme(cls):
        return "kept"

    def match(self, patterns, limits=None):
        found = super().match([p.removeprefix("kept:/") for p in patterns], limits)
        for result in found:
            for metadata in result.metadata_list:
                metadata.path = f"kept:/{metadata.path}"
        return found

    def open(self, path, *args, **kwargs):
        return super().open(path.removeprefix("kept:/"), *args, **kwargs)


def launched(monkeypatch, *argv: str):
    """What the launcher would run."""
    ran = []

    def run(what, tell, say):
        ran.append((what, what.policy and what.policy.read_text(),
                    what.schemas and sorted(p.name for p in what.schemas.glob("*.avsc"))))

    monkeypatch.setattr("measurement.cloud.run.run", run)
    monkeypatch.setattr(sys, "argv", ["launcher.py", *argv])
    with pytest.raises(SystemExit) as end:
        launcher.main()
    return end.value.code, *(ran[0] if ran else (None, None, None))


def test_the_launcher_runs_the_job_by_the_templates_parameters_and_gives_beam_the_rest(monkeypatch, tmp_path):
    (tmp_path / "policy.yaml").write_text("counting: {join_horizon: 12h}\n")
    (tmp_path / "schemas").mkdir()
    for name in ("v2.avsc", "v3.avsc", "notes.txt"):
        (tmp_path / "schemas" / name).write_text("{}")
    code, what, policy, schemas = launched(
        monkeypatch, *PLACES, f"--policy=kept:/{tmp_path}/policy.yaml", "--schemas", f"kept:/{tmp_path}/schemas/",
        "--readers=3", "--idle_seconds=240", "--resume=false", *SERVICE)
    assert code == 0
    assert (what.profile, what.engine, what.places.subscription, what.places.instance, what.places.dataset) == (
        "gcp", "dataflow", SUBSCRIPTION, INSTANCE, DATASET)
    assert (what.readers, what.idle_after, what.resume, what.until_idle) == (3, 240, False, False)
    assert policy == "counting: {join_horizon: 12h}\n" and schemas == ["v2.avsc", "v3.avsc"]
    assert what.flags == ["--no_save_main_session", *SERVICE]
    assert engine(what.engine, what.flags, print).hold == 0.0  # and Beam knows every flag


def test_the_lists_that_a_policy_names_come_with_it(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "lists").mkdir(parents=True)
    here.mkdir()
    (there / "policy.yaml").write_text("screening: {networks: [dc.txt, lists/more.txt]}\n")
    for name in ("dc.txt", "lists/more.txt"):
        (there / name).write_text("192.0.2.0/24\n")
    arguments = launcher.command([*PLACES, f"--policy=kept:/{there}/policy.yaml"], here)
    assert f"--policy={here}/policy.yaml" in arguments
    assert [found.facts.name for found in load(here / "policy.yaml").screening.datacentre] == ["dc.txt", "more.txt"]

    for text, says in (("screening: {networks: [gone.txt]}", "gone.txt: No such file"), ("screening: {networks: 7}", "no list of files"),
                       ("screening: {listed: [../there/dc.txt]}", "No such file"), ("- 1", "must be a mapping"), ("a: [", "not YAML")):
        (there / "policy.yaml").write_text(text)
        scratch = here / str(hash(text))
        scratch.mkdir()
        launcher.command([*PLACES, f"--policy=kept:/{there}/policy.yaml"], scratch)
        with pytest.raises(PolicyError, match=says):
            load(scratch / "policy.yaml")


def test_an_update_resumes_and_empty_fields_are_none(monkeypatch):
    assert launched(monkeypatch, *PLACES, "--policy=", *SERVICE)[1].resume is False
    assert launched(monkeypatch, *PLACES, "--resume=true", *SERVICE)[1].resume is True
    assert launched(monkeypatch, *PLACES, *SERVICE, "--update")[1].resume is True


def test_what_is_wrong_ends_the_launch_with_one_line(monkeypatch, tmp_path, capsys):
    for argv, says in ((["--bigtable=x"], "--subscription is needed"),
                       ([*PLACES, "--policy=kept://none/p.yaml"], "none/p.yaml")):
        code, what, *_ = launched(monkeypatch, *argv)
        told = code if isinstance(code, str) else capsys.readouterr().err
        assert what is None and code and says in told and told.strip().count("\n") == 0


# --- The job as Dataflow gets it -----------------------------------------------------------------------------

def described(tmp_path: Path, run: str = "1-x", generation: int = 1, rules: Policy = Policy()) -> dict[str, bytes]:
    """What the runner would put into Cloud Storage, by name: pipeline.pb, job.json and what it stages."""
    staged = {}

    def stage(self, place, name, stream, *args, **kwargs):
        staged[name] = stream.read()

    flags = [flag for flag in SERVICE if not flag.startswith("--template_location")]
    flags += ["--no_save_main_session", "--no_auth", f"--template_location={tmp_path}/job.json"]
    by = engine("dataflow", flags, print)
    source = PubSubSource(run, generation, SUBSCRIPTION, INSTANCE, Endpoints(), rules)
    with (mock.patch.object(apiclient.DataflowApplicationClient, "stage_file", stage),
          mock.patch.object(apiclient, "create_storage_client"),
          mock.patch.object(GoogleCloudOptions, "_warn_if_soft_delete_policy_enabled"),  # asks the bucket
          mock.patch("socket.getaddrinfo", side_effect=AssertionError("something was to be reached"))):
        p = beam.Pipeline(options=PipelineOptions(by.flags))
        stream(p, source, RunConfig(run, generation, 0, rules), Endpoints(), DATASET, INSTANCE, by.read_seconds)
        result = p.run()
    assert not result.has_job  # a template's job is submitted by the service
    return staged


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> dict[str, bytes]:
    return described(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def graph(staged) -> api.Pipeline:
    return api.Pipeline.FromString(staged["pipeline.pb"])


def names(graph: api.Pipeline) -> set[str]:
    """Names of all steps; where Beam names one by a line of its own source, the number is left out."""
    return {re.sub(r"core\.py:\d+", "core.py", t.unique_name) for t in graph.components.transforms.values()
            if t.spec.urn and not re.search("(Apart|Measured)/", t.unique_name)}  # whose parts are Beam's own


# State belongs to a step by its name: a name that changes loses it in an update, or needs --transform_name_mapping.
NAMES = {
    "Read", "Read/Create", "Read/Create/Impulse", "Read/Create/FlatMap(<lambda at core.py>)", "Read/Create/MaybeReshuffle",
    "Read/Create/Map(decode)", "Read/ReadUnbounded",
    "Delivery", "Delivery/Distribute", "Delivery/Distribute/ParDo(Distribute)", "Delivery/Join", "Delivery/Join/ParDo(Join)",
    "Delivery/Orders", "Delivery/Orders/ParDo(Orders)", "Delivery/Facts", "Delivery/Credits",
    "Delivery/Refused", "Delivery/Rejects", "Delivery/Rejects/ParDo(Rejects)", "Delivery/Tallies", "Delivery/Totals", "Delivery/Rows", "Apart", "BigQuery", "Bigtable",
    "Measured", "To store",
    *(f"{end}{step}" for end in ("Stored", "Served") for step in ("", "/Nothing", "/Apart", "/Taken")),
}
STATEFUL = {
    "Delivery/Join/ParDo(Join)", "Delivery/Orders/ParDo(Orders)", "Delivery/Credits", "Delivery/Rejects/ParDo(Rejects)", "Delivery/Totals"}


def test_the_steps_names_are_these_whatever_the_generation_or_policy(graph, tmp_path):
    assert names(graph) == NAMES
    other = described(tmp_path, "7-y", 7, Policy(digest="12345678"))
    assert names(api.Pipeline.FromString(other["pipeline.pb"])) == NAMES


def test_it_is_a_streaming_job_of_the_streaming_engine_whose_workers_have_the_templates_image(staged, graph):
    job = json.loads(staged["job.json"])
    assert job["type"] in ("JOB_TYPE_STREAMING", 2)
    experiments = set(job["environment"]["experiments"])
    assert {"use_runner_v2", "enable_streaming_engine", "enable_windmill_service"} <= experiments
    [environment] = graph.components.environments.values()
    assert api.DockerPayload.FromString(environment.payload).container_image == IMAGE
    bounds = {p.is_bounded for p in graph.components.pcollections.values() if "Read/" not in p.unique_name}
    assert bounds == {api.IsBounded.UNBOUNDED}
    assert set(graph.requirements) >= {common_urns.requirements.REQUIRES_STATEFUL_PROCESSING.urn,
                                       common_urns.requirements.REQUIRES_BUNDLE_FINALIZATION.urn}


def pardos(graph: api.Pipeline) -> dict[str, tuple[api.PTransform, api.ParDoPayload]]:
    return {t.unique_name: (t, api.ParDoPayload.FromString(t.spec.payload)) for t in graph.components.transforms.values()
            if t.spec.urn == common_urns.primitives.PAR_DO.urn}


def test_stateful_steps_are_keyed_by_text_and_keep_their_state_and_timers_under_these_ids(graph):
    stateful = {name: it for name, it in pardos(graph).items() if it[1].state_specs or it[1].timer_family_specs}
    assert set(stateful) == STATEFUL
    coders = graph.components.coders
    for step, payload in stateful.values():
        [source] = step.inputs.values()
        keyed = coders[graph.components.pcollections[source].coder_id]
        assert keyed.spec.urn == common_urns.coders.KV.urn
        assert coders[keyed.component_coder_ids[0]].spec.urn == common_urns.coders.STRING_UTF8.urn
        bags = {f"log{slot}" for slot in range(SLOTS + 1)}
        assert set(payload.state_specs) == {"token", *bags}
        for name, spec in payload.state_specs.items():
            kept = spec.bag_spec.element_coder_id if name in bags else spec.read_modify_write_spec.coder_id
            assert coders[kept].spec.urn == common_urns.coders.BYTES.urn, name
        domains = {name.rpartition("-")[2]: spec.time_domain for name, spec in payload.timer_family_specs.items()}
        event, clock = api.TimeDomain.EVENT_TIME, api.TimeDomain.PROCESSING_TIME
        assert domains == {"due": event, "end": event, "flush": clock}


LOAD = """
import importlib, json, sys
from apache_beam.internal import pickler
from apache_beam.portability.api import beam_runner_api_pb2 as api

def of(value):
    kind = type(value)
    known = importlib.import_module(kind.__module__)
    for name in kind.__qualname__.split("."):
        known = getattr(known, name)
    return [kind.__module__, kind.__qualname__, known is kind]

graph = api.Pipeline.FromString(open(sys.argv[1], "rb").read())
out = {"steps": {}, "coders": {}}
for t in graph.components.transforms.values():
    if t.spec.urn == "beam:transform:pardo:v1":
        fn = pickler.loads(api.ParDoPayload.FromString(t.spec.payload).do_fn.payload)[0]
        out["steps"][t.unique_name] = of(fn)
for name, c in graph.components.coders.items():
    if c.spec.urn == "beam:coder:pickled_python:v1":
        from apache_beam.coders import Coder
        from apache_beam.runners.pipeline_context import PipelineContext
        out["coders"][name] = of(PipelineContext(graph.components).coders.get_by_id(name))
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def loaded(staged, tmp_path_factory) -> dict:
    """Each step's DoFn and each of Python's coders as a worker loads them: (module, name, whether the module has it)."""
    at = tmp_path_factory.mktemp("elsewhere")
    (at / "pipeline.pb").write_bytes(staged["pipeline.pb"])
    program = [sys.executable, "-P", "-c", LOAD, "pipeline.pb"]
    done = subprocess.run(program, cwd=at, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_worker_elsewhere_loads_every_step_from_the_installed_package_and_no_main_session(staged, loaded):
    assert "pickled_main_session" not in staged
    own = {name: cls for name, (module, cls, same) in loaded["steps"].items() if module.startswith("measurement.") and same}
    assert own == {
        "Delivery/Distribute/ParDo(Distribute)": "Distribute", "Delivery/Join/ParDo(Join)": "Join",
        "Delivery/Orders/ParDo(Orders)": "Orders", "Delivery/Credits": "Credits",
        "Delivery/Rejects/ParDo(Rejects)": "Rejects", "Delivery/Totals": "Totals",
        "BigQuery": "WriteBigQuery", "Bigtable": "WriteBigtable"}
    assert all(module.startswith(("measurement.", "apache_beam.")) and same for module, _, same in loaded["steps"].values())


def test_what_is_last_does_nothing(graph):  # a sink must not be: see transforms/end.py
    read = {pcollection for t in graph.components.transforms.values() if t.spec.urn for pcollection in t.inputs.values()}
    last = {name for name, (t, _) in pardos(graph).items() if not read & set(t.outputs.values())}
    assert last == {"Stored/Taken", "Served/Taken"}


SINKS = "BigQuery.", "Stored/", "Served/"  # nothing comes of them


def test_batches_travel_by_their_own_coders(graph, loaded):
    components = graph.components
    read = {pcollection for t in components.transforms.values() if t.spec.urn for pcollection in t.inputs.values()}
    found = {}
    for pcollection in sorted(read):
        coder = components.coders[components.pcollections[pcollection].coder_id]
        value = coder.component_coder_ids[1] if coder.component_coder_ids else components.pcollections[pcollection].coder_id
        urn = components.coders[value].spec.urn
        found[components.pcollections[pcollection].unique_name.lstrip("0123456789")] = (
            loaded["coders"][value][:2] if value in loaded["coders"] else urn)
    batches, tallies, facts = (["measurement.transforms.coders", f"{kind}Coder"] for kind in ("Judged", "Deltas", "Facts"))
    rows = common_urns.coders.BYTES.urn
    assert {name: coder for name, coder in found.items() if not name.startswith(("Read/", "Apart/", "Measured/", *SINKS))} == {
        "Delivery/Distribute/ParDo(Distribute).events": batches, "Delivery/Join/ParDo(Join).orders": batches,
        "Delivery/Distribute/ParDo(Distribute).tallies": tallies, "Delivery/Join/ParDo(Join).tallies": tallies,
        "Delivery/Join/ParDo(Join).facts": facts, "Delivery/Orders/ParDo(Orders).facts": facts, "Delivery/Facts.None": facts,
        "Delivery/Orders/ParDo(Orders).tallies": tallies, "Delivery/Credits.None": tallies,
        "Delivery/Rejects/ParDo(Rejects).tallies": tallies,
        "Delivery/Tallies.None": tallies, "Delivery/Refused.None": rows,
        "Delivery/Distribute/ParDo(Distribute).rejects": rows, "Delivery/Join/ParDo(Join).rejects": rows,
        "Delivery/Rejects/ParDo(Rejects).rows": rows, "Delivery/Totals.None": rows, "Delivery/Rows.None": rows, "Bigtable.None": rows, "To store.None": rows}


def test_what_the_source_emits_travels_by_a_coder_of_its_own(loaded):
    assert ["measurement.io.intake_coder", "IntakeCoder", True] in loaded["coders"].values()


def test_an_intake_comes_through_its_coder_as_it_was_and_another_version_is_refused():
    reject = {
        "reject_id": "s@1", "reason": "bad_value", "detail": "price_micros", "event_id": "k\u00f6",
        "event_time": -62_135_596_800_000_000, "event_type": None, "payload": b"\x00\xff", "encoding": "json",
        "schema_id": None, "source": "s", "source_position": "1", "received_at": T + 1, "ledger_source": "ssp", "late": True}
    without = {**reject, "event_time": None, "late": False}
    for rejects, tallies in (([], {}), ([reject, without], {"ledger": one_row(T, 2), "intake": one_row(None, 1)})):
        was = Intake(batch(impression()), rejects, tallies, T, activity((1, 2, T)) if rejects else None)
        now = IntakeCoder().decode(encoded := IntakeCoder().encode(was))
        assert (now.rejects, now.before, list(now.tallies)) == (rejects, T, list(tallies))
        assert (now.activity is None) == (not rejects) and (not rejects or (now.activity.rows == was.activity.rows).all())
        assert now.batch.rows.tobytes() == was.batch.rows.tobytes() and now.batch.payloads[0] == was.batch.payloads[0]
        assert all(Deltas.encode(now.tallies[table]) == was.tallies[table].encode() for table in tallies)
        with pytest.raises(ValueError, match="version 9 where 2 is read"):
            IntakeCoder().decode((9).to_bytes(8, "little") + encoded[8:])
