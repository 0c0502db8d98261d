"""Attacks on the report API over real sockets: another's figures by any trick, keys where none belong, ranges of every kind, slow clients."""

import logging
import socket
import string
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from serving import A, Asking, Keys, books, delivery, serving, write

from measurement.serving.paging import BadCursor, after, cursor
from measurement.serving.server import Deadlines
from measurement.serving.warehouses import DuckDbReports

RANGE = "from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z"
B = "/v1/advertisers/b"


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> DuckDbReports:
    return DuckDbReports(write(tmp_path_factory.mktemp("served") / "out", books()))


@pytest.fixture(scope="module")
def api(reports, keys) -> Iterator[Asking]:
    with serving(reports, keys.ring()) as asking:
        yield asking


def problem(got, status: int) -> dict:
    """What every error is: a problem document that says nothing of the inside."""
    assert got.status == status, (got.status, got.body)
    assert got.headers["Content-Type"] == "application/problem+json"
    document = got.json
    assert document["status"] == status and {"type", "title", "detail"} <= set(document)
    assert not any(word in got.body.lower() for word in (b"traceback", b"duckdb", b"file \"", b"adm_", b"pydantic"))
    return document


TRICKS = [
    B, "/v1/advertisers/%62", "/v1/advertisers/a/../b", "/v1/advertisers/a%2F..%2Fb", "/v1/advertisers/a/%2e%2e/b", "/v1/advertisers/a%2Fb",
    "/v1/advertisers/a//b", "/v1/advertisers//a", "/v1/advertisers/./a", "/v1/advertisers/A", "/v1/advertisers/a%00", "/v1/advertisers/a%00b",
    "/v1/advertisers/%00a", "/v1/advertisers/a%20", "/v1/advertisers/%20a", "/v1/advertisers/a%0a", "/v1/advertisers/%EF%BD%81",  # fullwidth a
    "/v1/advertisers/%D0%B0", "/v1/advertisers/a%CC%80", "/v1/advertisers/%61%CD%8F", "/v1/advertisers/%2561", "/v1/advertisers/a;b",
    "/v1/advertisers/a,b", "/v1/advertisers/a|b", "/v1/advertisers/*", "/v1/advertisers/%25", "/v1/advertisers/_", "/v1/advertisers/a'%20OR%20'1'='1",
    "/v1/advertisers/a%27%20OR%201=1--", "/v1/advertisers/b/delivery/../../a", "/v1/advertisers/test:a", "/v1/advertisers/", "/v1/advertisers/%ff",
    "/v1/advertisers/null", "/v1/advertisers/%C0%AF", "/v1/advertisers/a%01", "/v1/advertisers/" + "a" * 5000,
]


@pytest.mark.parametrize("path", TRICKS)
@pytest.mark.parametrize("what", ["delivery", "attribution", "delivery/sums", "attribution/sums", "invalid_traffic/sums", "pacing", "exports"])
def test_no_spelling_of_a_path_shows_another_advertiser(api, keys, path, what):
    problem(api.get(f"{path}/{what}?{RANGE}", keys.a), 404 if "%0a" in path else 403)


@pytest.mark.parametrize("path", ["/v1/advertisers/a/b/../delivery", "/v1/advertisers/b/../a/Delivery", "//v1/advertisers/a/delivery",
                                  "/V1/advertisers/a/delivery", "/v1/advertisers/a/delivery/", "/v1/../v1/advertisers/a/x", "/v1/advertisers/a",
                                  "/index.html", "/page", "/page/", "/pacing", "/v1/advertisers/a/sums", "/v1/advertisers/a/rejects/sums", "/docs", "/redoc", "/v1", "/.git/config", "/v1/advertisers/a/conversion_credits", "/v1/advertisers/a/rejects"])
def test_what_is_no_path_is_nothing_or_not_theirs(api, keys, path):
    got = api.get(f"{path}?{RANGE}", keys.a)
    problem(got, got.status)
    assert got.status in (403, 404)


@pytest.mark.parametrize("extra", ["advertiser_id=b", "advertiser=b", "Advertiser_id=b", "campaign_id=c1&campaign_id=c2", "from=2026-01-01T00:00:00Z",
                                   "x", "table=rejects", "limit=1&limit=2", "advertiser_id[]=b", "grain=hour&grain=day", "format=csv", "%00=1", "from_=x"])
def test_parameters_that_are_none_or_twice_are_refused(api, keys, extra):
    problem(api.get(f"{A}/delivery?{RANGE}&{extra}", keys.a), 400)


@pytest.mark.parametrize("what", ["delivery", "delivery/sums", "attribution/sums", "invalid_traffic/sums", "pacing", "exports"])
def test_another_advertiser_and_one_that_is_not_there_look_the_same(api, keys, what):
    there, not_there = (api.get(f"/v1/advertisers/{name}/{what}?{RANGE}", keys.a) for name in ("b", "nobody"))
    assert (there.status, there.body) == (not_there.status, not_there.body) == (403, there.body)
    assert dict(there.headers) | {"date": ""} == dict(not_there.headers) | {"date": ""}
    wrong = [api.get(f"/v1/advertisers/{name}/{what}?from=x&cursor=!", keys.a) for name in ("b", "nobody")]
    assert [w.status for w in wrong] == [403, 403]  # before any parameter is looked at


def test_headers_and_filters_do_not_reach_another(api, keys):
    for header in ("X-Advertiser-Id", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-For", "X-HTTP-Method-Override"):
        rows = api.get(f"{A}/delivery?{RANGE}", keys.a, {header: f"{B}/delivery" if "URL" in header else "b"}).json["rows"]
        assert {r["advertiser_id"] for r in rows} == {"a"}
    for campaign in ("c1' OR '1'='1", "%", "c1\0", "*", "c1\x01", "\x01"):
        assert api.get(f"{A}/delivery?{RANGE}&campaign_id={quote(campaign)}", keys.a).json["rows"] == []


def test_sales_alone_sees_lists_and_nobody_sees_probes(api, keys):
    for path in ("/v1/advertisers", "/v1/pacing", f"{A}/invalid_traffic/sums?by=reason&{RANGE}", f"{A}/exports?table=delivery&{RANGE}"):
        problem(api.get(path, keys.a), 403)
        problem(api.get(path), 401)
        problem(api.get(path, keys.a + "x"), 401)
    for what in ("delivery/sums?by=format&", "invalid_traffic/sums?by=format&", "pacing?", "exports?table=delivery&"):
        problem(api.get(f"/v1/advertisers/test:a/{what}{'' if what == 'pacing?' else RANGE}", keys.sales), 404)
    problem(api.get(f"/v1/advertisers/test:a/delivery?{RANGE}", keys.sales), 404)
    problem(api.get(f"/v1/advertisers/test%3Aa/invalid_traffic?{RANGE}", keys.sales), 404)


def test_a_cursor_of_another_request_is_none(api, keys):
    path = f"{A}/delivery?{RANGE}&limit=3"
    mine = api.get(path, keys.a).json["next"]
    assert api.get(f"{path}&cursor={mine}", keys.a).status == 200
    for other in (f"{A}/attribution?{RANGE}", f"{A}/delivery?{RANGE}&grain=day", f"{A}/delivery?{RANGE}&campaign_id=c1",
                  f"{A}/delivery?from=2026-03-01T00:00:00Z&to=2026-03-03T00:00:00Z"):
        problem(api.get(f"{other}&cursor={mine}", keys.a), 400)
    problem(api.get(f"{B}/delivery?{RANGE}&limit=3&cursor={mine}", keys.b), 400)
    problem(api.get(f"{B}/delivery?{RANGE}&limit=3&cursor={mine}", keys.a), 403)


@pytest.mark.parametrize("bad", ["", "x", "A" * 8192, "A" * 9000, "....", "%00", "ü", "AAAAAAAAAAAAAAAAAAAAAAA", "=" * 40, "-1", "null"])
def test_a_cursor_that_is_none_is_refused(api, keys, bad):
    problem(api.get(f"{A}/delivery?{RANGE}&cursor={quote(bad, safe='%')}", keys.a), 400)


def test_a_cursor_forged_by_who_knows_the_source_stays_in_the_advertisers_rows(api, keys):
    start, stop = 1_772_409_600_000_000, 1_772_496_000_000_000
    asked = "delivery", "a", start, stop, None, "hour"
    for position in (b"\xff" * 4 + b"\0", b"\0" * 5, b"\0" * 4 + b"\xff\xfe\0" * 9, b"\x7f\xf8\x00\x00b\0h\0", b"\0" * 4000):
        for grain in ("hour", "day"):
            got = api.get(f"{A}/delivery?{RANGE}&grain={grain}&cursor={cursor((*asked[:5], grain), position)}", keys.a)
            assert got.status == 200 and {r["advertiser_id"] for r in got.json["rows"]} <= {"a"}


@settings(max_examples=300)
@given(st.text(max_size=60))
@example("_" * 20)
@example("AAAA\n")
def test_no_text_is_a_cursor_by_accident(text):
    with pytest.raises(BadCursor):
        after(("delivery", "a"), text)


BAD_RANGES = [
    "", "from=2026-03-02T00:00:00Z", "to=2026-03-02T00:00:00Z", "from=&to=", "from=2026-03-02&to=2026-03-03", "from=2026-03-02T00:00:00&to=2026-03-03T00:00:00",
    "from=2026-03-02T00:00:00+02:00&to=2026-03-03T00:00:00+02:00",  # + is a space
    "from=2026-03-02T00:00:00Z&to=2026-03-02T00:00:00Z", "from=2026-03-03T00:00:00Z&to=2026-03-02T00:00:00Z",
    "from=2020-01-01T00:00:00Z&to=2026-03-03T00:00:00Z", "from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z", "from=-0001-01-01T00:00:00Z&to=2026-03-03T00:00:00Z",
    "from=2026-02-29T00:00:00Z&to=2026-03-03T00:00:00Z", "from=2026-02-30T00:00:00Z&to=2026-03-03T00:00:00Z", "from=2026-03-02T24:00:00Z&to=2026-03-04T00:00:00Z",
    "from=2016-12-31T23:59:60Z&to=2017-01-02T00:00:00Z", "from=2026-03-02T00:00:00%2B25:00&to=2026-03-03T00:00:00Z", "from=1e99&to=2e99", "from=NaN&to=inf",
    "from=1772409600&to=1772496000", "from=0&to=-1", "from=2026-03-02T00:00:00Z%00&to=2026-03-03T00:00:00Z", "from=%EF%BC%92026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z",
    "from=now&to=now()", "from=99999-01-01T00:00:00Z&to=99999-01-02T00:00:00Z", f"from={'2' * 4000}&to=2026-03-03T00:00:00Z", "from=10000-01-01T00:00:00Z&to=10000-01-02T00:00:00Z",
]


@pytest.mark.parametrize("query", [*BAD_RANGES, *(f"{RANGE}&{more}" for more in (
    "limit=0", "limit=-1", "limit=10001", "limit=1e3", "limit=x", "limit=99999999999999999999999", "limit=", "grain=minute", "grain=", "grain=HOUR", "campaign_id=",
    "campaign_id=" + "x" * 2000))])
def test_a_range_or_number_that_is_none_is_refused_with_the_parameters_name(api, keys, query):
    document = problem(api.get(f"{A}/delivery?{query}", keys.a), 400)
    assert all(e["parameter"] in ("from", "to", "query", "limit", "grain", "campaign_id") and e["detail"] for e in document["errors"])


@pytest.mark.parametrize("query", BAD_RANGES)
@pytest.mark.parametrize("what", ["delivery/sums?by=format&", "exports?table=delivery&"])
def test_a_range_that_is_none_is_refused_wherever_one_is_asked_for(api, keys, query, what):
    assert problem(api.get(f"{A}/{what}{query}", keys.sales), 400)["errors"]


@pytest.mark.parametrize("query", ["from=2024-02-29T00:00:00Z&to=2024-03-01T00:00:00Z", "from=1970-01-01T00:00:00Z&to=1970-01-02T00:00:00Z",
                                   "from=9999-12-30T00:00:00Z&to=9999-12-31T23:59:59.999999Z", "from=2026-03-02t00:00:00z&to=2026-03-03T00:00:00-23:59",
                                   "from=2026-03-02T00:00:00-00:00&to=2026-03-02T00:00:00.0000019Z", "from=2025-03-02T00:00:00Z&to=2026-04-06T00:00:00Z"])
@pytest.mark.parametrize("grain", ["hour", "day"])
def test_an_odd_range_that_is_one_is_answered(api, keys, query, grain):
    assert api.get(f"{A}/delivery?{query}&grain={grain}", keys.a).status == 200


@settings(max_examples=60)
@given(st.sampled_from(["delivery", "delivery/sums", "invalid_traffic/sums", "pacing", "exports"]),
       st.dictionaries(st.sampled_from(["from", "to", "limit", "cursor", "grain", "campaign_id", "by", "table", "format", "zz"]), st.text(string.printable, max_size=30)))
@example("delivery/sums", {"from": "2026-03-02T00:00:00Z", "to": "2026-03-03T00:00:00Z", "by": "format", "campaign_id": "c1' OR '1'='1"})
@example("exports", {"from": "2026-03-02T00:00:00Z", "to": "2026-03-03T00:00:00Z", "table": "attribution", "campaign_id": "../../\0'\"\\"})
@example("exports", {"from": "1970-01-01T00:00:00Z", "to": "1971-01-01T00:00:00Z", "table": "attribution", "grain": "day"})
@example("exports", {"from": "9998-12-01T00:00:00Z", "to": "9998-12-31T23:00:00Z", "table": "attribution"})
def test_no_query_breaks_the_server(api, keys, what, query):
    got = api.get(f"{A}/{what}?" + "&".join(f"{k}={quote(v)}" for k, v in query.items()), keys.sales)
    problem(got, 400) if got.status != 200 else None


def test_a_key_belongs_into_its_header_and_nowhere_else(api, keys):
    path = f"{A}/delivery?{RANGE}"
    for target in (f"{path}&api_key={keys.a}", f"{path}&access_token={keys.a}", f"{path}&campaign_id={keys.a}", f"/v1/advertisers/{keys.a}/delivery?{RANGE}",
                   f"{path}&token=x", f"{path}&x={quote(keys.a.replace('_', '%5F'), safe='%')}"):
        for sent in (None, keys.a):
            problem(api.get(target, sent), 400)
    for header, value in {"X-API-Key": keys.a, "Cookie": f"key={keys.a}", "X-Auth-Token": "x"}.items():
        problem(api.get(path, None, {header: value}), 400)
    for value in (f"Basic {keys.a}", keys.a, f"Bearer {keys.a} x", f"Bearer {keys.a},{keys.b}", "Bearer", "Bearer ", f"Bearer\t{keys.a}", f"Token {keys.a}", "", "Bearer \xff"):
        got = api.get(path, None, {"Authorization": value})
        problem(got, 401)
        assert got.headers["WWW-Authenticate"].startswith("Bearer ")
    assert api.get(path, None, {"authorization": f"bearer {keys.a}"}).status == 200
    got = raw(api, f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {keys.b}\r\nAuthorization: Bearer {keys.a}\r\nConnection: close\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 401 ")


def test_no_key_and_no_query_is_logged(api, keys, caplog):
    caplog.set_level(logging.DEBUG)
    api.get(f"{A}/delivery?{RANGE}&api_key={keys.a}", keys.a)
    api.get(f"/v1/advertisers/{keys.a}/delivery?campaign_id=secret-campaign", keys.a)
    api.get(f"{A}/delivery?{RANGE}&campaign_id=secret-campaign", keys.a)
    raw(api, f"GET /{keys.a} HTTP/9\r\n\r\n")
    assert caplog.text and keys.a[21:] not in caplog.text and "secret-campaign" not in caplog.text


def test_every_answer_has_the_headers_of_a_careful_server(api, keys):
    for got in (api.get(f"{A}/delivery?{RANGE}", keys.a), api.get(f"{A}/delivery"), api.get("/x"), api.get("/healthz"), api.get(f"{A}/delivery", method="POST"),
                api.get(f"{A}/delivery/sums?by=format&{RANGE}", keys.a), api.get(f"{A}/pacing", keys.a), api.get(f"{A}/exports?table=delivery&{RANGE}", keys.sales),
                api.get("/"), api.get("/page/none")):
        assert got.headers["X-Content-Type-Options"] == "nosniff" and got.headers["Cache-Control"] and "Server" not in got.headers
        assert "default-src 'none'" in got.headers["Content-Security-Policy"]
    assert "private" in api.get(f"{A}/delivery?{RANGE}", keys.a).headers["Cache-Control"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "BREW"])
@pytest.mark.parametrize("path", [f"{A}/delivery?{RANGE}", f"{A}/delivery/sums?by=format&{RANGE}", f"{A}/pacing", f"{A}/exports?table=delivery&{RANGE}", "/v1/pacing", "/"])
def test_only_get_is_answered(api, keys, method, path):
    assert api.get(path, keys.sales, method=method).status == 405


def raw(api: Asking, request: str | bytes, seconds: float = 30) -> bytes:
    """All that comes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=seconds) as one:
        one.sendall(request.encode() if isinstance(request, str) else request)
        got = b""
        while part := one.recv(1 << 16):
            got += part
        return got


@pytest.mark.parametrize("request_", [
    "GET / HTTP/1.1\r\n\r\n", "NONSENSE\r\n\r\n", "GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", "GET  /x  HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nX: " + "x" * 70_000 + "\r\n\r\n", "GET /" + "x" * 70_000 + " HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\n" + "A: b\r\n" * 9_000 + "\r\n", "GET / HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n"])
def test_what_is_no_http_or_too_long_ends_in_a_problem_and_a_closed_connection(api, request_):
    try:
        got = raw(api, request_)
    except ConnectionResetError:  # closed with some of the request unread
        return
    assert got.startswith(b"HTTP/1.1 400 ") and b"application/problem+json" in got


@pytest.mark.parametrize("length", ["Content-Length: 1000000000", "Transfer-Encoding: chunked", "Content-Length: 5"])
def test_a_body_is_neither_read_nor_waited_for(api, keys, length):
    got = raw(api, f"GET {A}/delivery?{RANGE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {keys.a}\r\n{length}\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("sent", ["", "GET", f"GET {A}/delivery HTTP/1.1\r\nHost: x\r\nX-"])
def test_a_head_that_does_not_come_ends_the_connection(reports, keys, sent):
    with serving(reports, keys.ring(), deadlines=Deadlines(head=0.3)) as api:
        began = time.monotonic()
        try:
            assert raw(api, sent) == b""
        except ConnectionResetError:
            pass
        assert time.monotonic() - began < 15


def test_a_head_that_comes_by_drops_has_no_longer_time(reports, keys):
    with serving(reports, keys.ring(), deadlines=Deadlines(head=0.5)) as api, socket.create_connection(("127.0.0.1", api.port)) as one:
        one.settimeout(0.05)
        until, ended = time.monotonic() + 20, False
        while not ended and time.monotonic() < until:
            try:
                one.sendall(b"x")
                ended = one.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
        assert ended


def test_who_does_not_take_the_answer_is_cut_off(tmp_path, keys):
    """The answer is larger than all buffers between; the server lets go of it and its connection."""
    rows = [delivery(h, 1, line_item_id=f"l{i}", rule_version="r" * 2000) for h in range(20) for i in range(250)]
    reports = DuckDbReports(write(tmp_path / "out", {"delivery": rows}))
    with serving(reports, keys.ring(), deadlines=Deadlines(take=0.5)) as api, socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(60)
        one.connect(("127.0.0.1", api.port))
        one.sendall(f"GET {A}/delivery?{RANGE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {keys.a}\r\n\r\n".encode())
        until = time.monotonic() + 60
        while one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1:  # established, by the kernel's word
            assert time.monotonic() < until
        assert api.get("/healthz").status == 200


def test_a_thousand_slow_clients_do_not_keep_others_waiting(reports, keys):
    """Half of them send nothing, half a head by drops; nobody waits for them, and beyond the limit the oldest of them goes."""
    with serving(reports, keys.ring(), deadlines=Deadlines(head=60, connections=600)) as api:
        slow = []
        try:
            for i in range(1000):
                one = socket.create_connection(("127.0.0.1", api.port), timeout=30)
                if i % 2:
                    one.sendall(b"GET /v1/advertisers/a/delivery HTTP/1.1\r\nX-Slow: ")
                slow.append(one)
            took = []
            for i in range(40):
                for one in slow[i::40]:
                    try:
                        one.sendall(b"x")
                    except OSError:
                        pass  # among the oldest
                began = time.monotonic()
                assert api.get(f"{A}/delivery?{RANGE}", keys.a).status == 200
                took.append(time.monotonic() - began)
            assert sorted(took)[20] < 2, took
        finally:
            for one in slow:
                one.close()


def test_slow_clients_are_gone_after_their_time(reports, keys):
    with serving(reports, keys.ring(), deadlines=Deadlines(head=0.5)) as api:
        slow = [socket.create_connection(("127.0.0.1", api.port), timeout=30) for _ in range(200)]
        try:
            for one in slow:
                try:
                    assert one.recv(1) == b""
                except ConnectionResetError:
                    pass
        finally:
            for one in slow:
                one.close()
