"""Keys: shown once, hashed at rest, revoked without a restart; and how often who may ask."""

import json
import os
import socket
import stat
import subprocess
import sys
import threading

import pytest
from serving import A, Asking, Clock, Keys, books, serving, write

from measurement.failure import Failure
from measurement.serving.keys import KEY, KeyFile, KeyRing, KeysUnreadable
from measurement.serving.limits import Buckets, Limits, network
from measurement.serving.warehouses import DuckDbReports

DAY = {"from_": "2026-03-02T00:00:00Z", "to": "2026-03-03T00:00:00Z"}


@pytest.fixture
def keys(tmp_path) -> Keys:
    return Keys(tmp_path / "keys.json")


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> DuckDbReports:
    return DuckDbReports(write(tmp_path_factory.mktemp("served") / "out", books()))


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "measurement.cli", *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_a_key_is_found_by_its_whole_text_alone(keys):
    ring = keys.ring()
    assert ring.find(keys.a).advertiser_id == "a" and ring.find(keys.sales).sales and not ring.find(keys.b).sales
    other = keys.b.rpartition("_")[0] if keys.b.count("_") == 2 else keys.b[:20]
    for wrong in ("", keys.a[:-1], keys.a + "x", keys.a.upper(), keys.a[:-1] + ("A" if keys.a[-1] != "A" else "B"), " " + keys.a,
                  keys.a[:21] + keys.b[21:], other, keys.a.replace("adm_", "adm_" + "0"), "adm_" + "0" * 16 + keys.a[20:], keys.a + "\n"):
        assert ring.find(wrong) is None


def test_the_file_has_no_key_in_it_and_is_its_owners_alone(keys):
    text = keys.path.read_text()
    assert all(KEY.fullmatch(key) and key not in text and key[21:] not in text for key in (keys.a, keys.b, keys.sales))
    assert stat.S_IMODE(os.stat(keys.path).st_mode) == 0o600
    keys.path.chmod(0o644)
    keys.file.make("c")
    assert stat.S_IMODE(os.stat(keys.path).st_mode) == 0o600


def test_a_revoked_key_and_an_expired_one_do_not_hold(tmp_path):
    clock = Clock()
    file = KeyFile(tmp_path / "keys.json", clock)
    (one, text), (_, short) = file.make("a"), file.make("a", expires_at=2000)
    ring = KeyRing(tmp_path / "keys.json", clock, clock)
    assert ring.find(text) and ring.find(short)
    clock.now = 1999.9
    assert ring.find(short)
    clock.now = 2000
    assert ring.find(short) is None and ring.find(text)
    file.revoke(one.id)
    clock.now += 1
    assert ring.find(text) is None
    assert [k.state(clock()) for k in file.all()] == ["revoked", "expired"]
    clock.now += 50
    assert file.revoke(one.id).revoked_at == 2000


@pytest.mark.parametrize("broken", [b"", b"{}", b"[]", b'{"version": 2, "keys": []}', b'{"version": 1, "keys": [{}]}',
                                    b'{"version": 1, "keys": [{"id": "x", "sha256": "y", "name": "", "created_at": 1, "expires_at": null, "revoked_at": null, "owner": {}}]}',
                                    b'{"version": 1, "keys": [{"id": "x", "sha256": "y", "name": "", "created_at": 1, "expires_at": null, "revoked_at": null, "owner": null}]}',
                                    b'{"version": 1, "keys": [{"id": "x", "sha256": "y", "name": "", "created_at": 1, "expires_at": null, "revoked_at": null}]}'])
def test_of_a_broken_file_no_key_holds_and_none_becomes_one_of_sales(keys, broken):
    clock = Clock()
    ring = KeyRing(keys.path, clock=clock)
    assert ring.find(keys.a)
    keys.path.write_bytes(broken)
    clock.now += 1
    with pytest.raises(KeysUnreadable):
        ring.find(keys.a)
    with pytest.raises(Failure, match="keys.json"):
        keys.file.make("c")
    assert keys.path.read_bytes() == broken


def test_two_who_change_the_file_lose_nothing(keys):
    threads = [threading.Thread(target=lambda n=n: [keys.file.make(f"{n}-{i}") for i in range(5)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys.file.all()) == 3 + 20
    assert [p.name for p in sorted(keys.path.parent.iterdir())] == [".keys.json.lock", "keys.json"]


def test_the_command_makes_lists_and_revokes(tmp_path):
    path = tmp_path / "keys.json"
    made = command("keys", "make", "--advertiser", "adv-1", "--name", "Ann", "--keys", path)
    text, told = made.stdout.splitlines()
    assert made.returncode == 0 and KEY.fullmatch(text) and "adv-1" in told
    listed = command("keys", "list", "--keys", path)
    [id_, state, owner, *_, name] = listed.stdout.rstrip("\n").split("\t")
    assert (state, owner, name) == ("valid", "advertiser adv-1", "Ann") and text not in listed.stdout
    assert command("keys", "revoke", id_, "--keys", path).returncode == 0
    assert "revoked" in command("keys", "list", "--keys", path).stdout
    assert json.loads(path.read_text())["keys"][0]["revoked_at"]


@pytest.mark.parametrize("flags, names", [
    (["make"], "--advertiser or --sales"), (["make", "--sales", "--advertiser", "a"], "--advertiser or --sales"),
    (["make", "--advertiser", ""], "--advertiser"), (["make", "--advertiser", "test:a"], "--advertiser"),
    (["make", "--sales", "--expires", "2020-01-01"], "--expires"), (["revoke", "nope"], "nope"), (["list"], "--keys")])
def test_wrong_use_is_told_in_one_line(tmp_path, flags, names):
    done = command("keys", *flags, "--keys", tmp_path / "none" / "keys.json" if flags == ["list"] else tmp_path / "keys.json")
    assert done.returncode == 2 and names in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("flags, names", [([], "--out"), (["--out", "nowhere"], "nowhere"), (["--profile", "emulators"], "--bigtable"),
                                          (["--profile", "emulators", "--bigtable", "x"], "--bigtable"), (["--port", "70000"], "port")])
def test_a_server_that_cannot_start_says_why_in_one_line(keys, flags, names):
    done = command("serve", "--keys", keys.path, *flags)
    assert done.returncode == 2 and names in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_serves_until_it_is_stopped(keys, reports, workers):
    process = subprocess.Popen([sys.executable, "-m", "measurement.cli", "serve", "--keys", str(keys.path), "--out", str(reports._warehouse.out),
                                "--port", "0", "--workers", str(workers)], stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stderr if "serving at" in line)
        api = Asking(int(line.rpartition(":")[2]))
        assert [api.get(f"{A}/delivery", keys.a, **DAY).status for _ in range(4)] == [200] * 4
        process.terminate()
        said = process.communicate(timeout=60)[1]
        assert "Traceback" not in said and keys.a not in said
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_address_that_is_taken_is_told_even_where_it_could_be_shared(keys, reports, workers):
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        done = command("serve", "--keys", keys.path, "--out", reports._warehouse.out, "--port", port, "--workers", workers)
    assert done.returncode == 2 and "in use" in done.stderr and "Traceback" not in done.stderr


def test_a_running_server_hears_of_a_revocation(keys, reports):
    clock = Clock()
    with serving(reports, KeyRing(keys.path, clock=clock)) as api:
        assert api.get(f"{A}/delivery", keys.a, **DAY).status == 200
        keys.file.revoke(keys.entry.id)
        clock.now += 1
        gone = api.get(f"{A}/delivery", keys.a, **DAY)
        assert gone.status == 401 and gone.headers["WWW-Authenticate"].startswith("Bearer")
        assert api.get("/v1/advertisers/b/delivery", keys.b, **DAY).status == 200
        keys.path.unlink()
        clock.now += 1
        assert api.get("/v1/advertisers/b/delivery", keys.b, **DAY).status == 503
        assert (api.get("/readyz").status, api.get("/healthz").status) == (503, 200)


def test_a_bucket_gives_what_it_has_and_fills_again():
    clock = Clock()
    buckets = Buckets(2, 3, clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 1]
    assert buckets.take("b") == 0
    clock.now += 0.5
    assert [buckets.take("a") for _ in range(2)] == [0, 1]
    clock.now += 1000
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 1]


def test_a_slow_bucket_says_how_long_to_wait():
    clock = Clock()
    buckets = Buckets(0.1, 1, clock)
    assert [buckets.take("a") for _ in range(2)] == [0, 10]
    clock.now += 10
    assert buckets.take("a") == 0


@pytest.mark.parametrize("host, counted", [("10.1.2.3", "10.1.2.3"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
                                           ("::ffff:10.1.2.3", "10.1.2.3"), ("", ""), ("unix", "unix")])
def test_addresses_are_counted_as_one_customers(host, counted):
    assert network(host) == counted


def test_a_key_that_asks_too_often_waits_and_others_do_not(keys, reports):
    clock = Clock()
    with serving(reports, keys.ring(), Limits(rate=0.5, burst=2), clock=clock) as api:
        def statuses(key: str, n: int) -> list[int]:
            return [api.get("/v1/advertisers/x/delivery", key, **DAY).status for _ in range(n)]

        assert statuses(keys.a, 3) == [403, 403, 429]
        late = api.get(f"{A}/delivery", keys.a, **DAY)
        assert (late.status, late.headers["Retry-After"], late.headers["Content-Type"]) == (429, "2", "application/problem+json")
        assert statuses(keys.b, 1) == [403]
        clock.now += 2
        assert statuses(keys.a, 2) == [403, 429]


def test_an_address_that_tries_keys_is_slowed_and_a_good_key_from_it_is_not(keys, reports):
    clock = Clock()
    with serving(reports, keys.ring(), Limits(refused_rate=1, refused_burst=3), clock=clock) as api:
        tried = [api.get(f"{A}/delivery", f"adm_{i:016x}_" + "A" * 43, **DAY) for i in range(5)]
        assert [t.status for t in tried] == [401, 401, 401, 429, 429] and tried[-1].headers["Retry-After"] == "1"
        assert api.get(f"{A}/delivery", keys.a, **DAY).status == 200
        clock.now += 1
        assert api.get(f"{A}/delivery", "x", **DAY).status == 401
