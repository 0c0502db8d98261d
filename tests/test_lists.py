"""Screening lists: reading them, what is known of them, and judging whole batches by them.

The open list's own published files are read from the installed package: its instances must be found, and what its tests
say is no crawler must not.
"""

import ast
import json
import pickle
import re
import sys
import time
from datetime import date
from importlib.metadata import version
from ipaddress import ip_network
from itertools import product
from pathlib import Path

import crawleruseragents
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measurement import cli
from measurement.columnar.by_value import ByValue
from measurement.columnar.needles import END, START, Needles
from measurement.local import lists as command
from measurement.model.lists import ListFacts
from measurement.model.policy_file import PolicyError
from measurement.rules import iab, networks, robots
from measurement.rules.robots import JUDGED_BYTES, JUDGED_CHARACTERS, Robots
from measurement.simulate.agents import HUMAN, ROBOTS
from test_addresses import slices

PACKAGE = Path(crawleruseragents.__file__).parent
ENTRIES = json.loads((PACKAGE / "crawler-user-agents.json").read_text())
INSTANCES = [instance for entry in ENTRIES for instance in entry["instances"]]
PEOPLE = [agent for agents in HUMAN.values() for agent in agents]
TODAY = date(2026, 11, 23)


def oracle(text: str) -> bool:
    return crawleruseragents.is_crawler(text[:JUDGED_CHARACTERS])


# -- needles ----------------------------------------------------------------------------------------------------------

few = st.text("abé\0\n", max_size=6)


@given(st.lists(few.filter(bool), unique=True, max_size=8), st.lists(few, max_size=6))
def test_needles_are_found_wherever_they_stand(wanted, texts):
    marked = [n.encode() for n in wanted] + [START + n.encode() for n in wanted] + [n.encode() + END for n in wanted]
    text, needle = Needles(marked).find(texts)
    pairs = list(zip(text.tolist(), needle.tolist()))
    k = len(wanted)
    where = [lambda t, n: n in t, str.startswith, str.endswith]
    expected = {(t, n) for t, it in enumerate(texts) for n in range(3 * k) if where[n // k](it, wanted[n % k])}
    assert len(pairs) == len(set(pairs)) and set(pairs) == expected and text.tolist() == sorted(text.tolist())


def test_needles_in_many_texts_that_have_them_all():
    wanted = [b"a" * n for n in range(1, 50)]
    text, needle = Needles(wanted).find(["a" * 60] * 1_000)
    assert len(text) == 49_000 and np.bincount(needle).tolist() == [1_000] * 49
    assert [len(x) for x in Needles(wanted).find([])] == [len(x) for x in Needles([]).find(["a", ""])] == [0, 0]


# -- the open list ----------------------------------------------------------------------------------------------------

def test_the_list_finds_its_own_instances():
    assert len(INSTANCES) > 1_000 and Robots().judge(INSTANCES).all() and all(map(oracle, INSTANCES))


def test_the_lists_own_negatives_are_no_robots():
    """Every text that the package's tests say is no crawler."""
    negatives = []
    for node in ast.walk(ast.parse((PACKAGE / "test_harness.py").read_text())):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Call) and getattr(node.left.func, "id", "") == "is_crawler":
            (says,) = node.comparators
            if says.value is False and not node.left.keywords:
                negatives.append(node.left.args[0].value)
    assert len(negatives) >= 2 and not Robots().judge(negatives).any()


def test_people_and_declared_robots():
    assert not Robots().judge(PEOPLE).any() and Robots().judge(ROBOTS).all()


def test_each_entry_of_the_list_alone():
    """Each pattern finds what Python's ``re`` finds, in its instances, in them changed, and in texts made of its own parts."""
    parts = [
        "Spider\nspider.com", "spider.com Spider", "Current\n RSS Reader", "RSS Reader Current", "wget", "Wget", "WGET", "get",
        "sentry/", " sentry/", "xsentry/", "PTST/1", "x PTST/1", "SSL Labs", "SSL Labs\n", "SSL Labs\n\n", "SSL Labs ",
        "GoogleAssociationService\n", "curl", "xcurl", "\ncurl", "Silk/", "BlogTraffic/1.2 Feed-Fetcher",
        "BlogTraffic/٣.٤ Feed-Fetcher", "BlogTraffic/1. Feed-Fetcher", "AdsBot-Google", "AdsBot-Google-", "AdsBot-Google\n",
        "AdsBot-Google x", "sistrix crawler", "SISTRIX Crawler", "Sistrix crawler"]
    for entry in ENTRIES:
        pattern, check = re.compile(entry["pattern"]), robots._Expressions([entry["pattern"]])
        changed = [i[at:] for i in entry["instances"][:2] for at in (1, 2)] + [i.swapcase() for i in entry["instances"][:2]]
        texts = [*parts, *entry["instances"][:5], *changed, pattern.pattern.replace("\\", "")]
        assert check.judge(texts).tolist() == [pattern.search(t) is not None for t in texts], pattern


ENDS = ["", "\n", "$", ".", "(", "]", "^", "é", "{b", " "]
WORDS = ["".join(letters) + end for n in range(5) for letters in product("abcx", repeat=n) for end in ENDS]
WORDS += ["a.b", "1", "a\nb", "a b", "ééb", "x(y"]


@pytest.mark.parametrize("pattern", [
    "a", "^a", "a$", "^a$", "a\\.b", "a.b", "a|b", "ab|", "[ab]c", "x[^]a]y", "[]a]b", "a*bc", "a?", "ab?c", "ab{2}c", "ab{0,1}",
    "(ab)?c", "(a|b)c", "a+b", "a{b", "\\d", "a\\sb", "a\\$", "\\^a", "^", "$", "", "(?:ab)c", "(?!a)bc", "a\\nb", "(a)\\1",
    "((a)b)*c", "ab??c", "é+b", "\\bab", "[(]a"])
def test_any_expression_is_searched_as_python_does(pattern):
    found = robots._Expressions([pattern]).judge(WORDS).tolist()
    assert found == [re.search(pattern, t) is not None for t in WORDS]


@st.composite
def changed(draw) -> str:
    text = draw(st.sampled_from(INSTANCES) | st.sampled_from(PEOPLE))
    for _ in range(draw(st.integers(0, 3))):
        at, size = draw(st.integers(0, len(text))), draw(st.integers(0, 4))
        put = draw(st.text(max_size=3) | st.sampled_from(["\n", "\0", "bot", "get", " ", "Spider"]))
        text = text[:at] + put + text[at + size :]
    return text.upper() if draw(st.integers(0, 9)) == 0 else text


@settings(max_examples=200)
@given(st.lists(changed() | st.text(st.characters(), max_size=30), max_size=8))
def test_the_list_is_searched_as_its_package_does(texts):
    assert Robots().judge(texts).tolist() == [oracle(t) for t in texts]


def test_texts_of_any_code_point_and_length():
    texts = ["\ud800AhrefsBot", "\ud800", "x\0AhrefsBot", "é" * 1_992 + "AhrefsBot", "é" * 1_991 + "AhrefsBot",
             "😀" * 1_991 + "AhrefsBot" * 9, ""]
    assert Robots().judge(texts).tolist() == [oracle(t) for t in texts] == [True, False, True, False, True, True, False]
    assert Robots().judge([]).shape == (0,)


@pytest.mark.parametrize(("first", "then"), [
    ("", "Spider"), ("spider.com", "Spider"), ("", "Current"), ("", "\\"), ("", "a"), ("", "Googlebo"), ("", "AhrefsBo")])
def test_no_user_agent_holds_up_its_batch(first, then):
    began = time.process_time()
    Robots().judge([first + then * (1_000_000 // len(then))] * 20)
    assert time.process_time() - began < 2  # takes milliseconds


def test_the_lists_facts():
    facts = robots.facts()
    assert (facts.name, facts.reason, facts.entries) == ("crawler-user-agents", "robot", len(ENTRIES))
    assert facts.date == date.fromisoformat(max(e["addition_date"] for e in ENTRIES if "addition_date" in e).replace("/", "-"))
    assert facts.version == version("crawler-user-agents")
    assert re.fullmatch(r"robot:crawler-user-agents@[\w.]+@[\d-]+#[0-9a-f]{8}", facts.stamp)


def test_robots_travel_and_refuse_another_list(monkeypatch):
    travelling = pickle.dumps(Robots())
    assert len(travelling) < 1_000 and pickle.loads(travelling).judge(["curl/8.5.0", "x"]).tolist() == [True, False]
    other = ListFacts("crawler-user-agents", "robot", "9", None, 1, "00000000")
    monkeypatch.setattr(robots, "facts", lambda: other)
    with pytest.raises(RuntimeError, match="@9#00000000"):
        pickle.loads(travelling)


# -- the IAB's list ---------------------------------------------------------------------------------------------------

EXCLUDE = """#
#\tIAB_ABC_International_Spiders_and_Robots_202610_25-091508
#\tOctober 25, 2026
# pattern|active|exceptions|...
Crawl|1||0|2|0
fetcher |1||1|0|0

Java|1|Javax, java.desktop|0|1|1
tool|1|Toolbar|0|2|0
tool|1|toolkit,|0|2|0
retired|0||0|2|0|12/20/2011
agent # 1|1||0|1|0|
"""
INCLUDE = "# October 25, 2026\nMozilla/|1|1\nOpera|1|0\nOld|0|0|03/30/2017\n"


def lists(folder: Path, exclude: str | bytes = EXCLUDE, include: str | None = None) -> iab.Iab:
    (folder / "exclude.txt").write_bytes(exclude if isinstance(exclude, bytes) else exclude.encode())
    if include is not None:
        (folder / "include.txt").write_text(include)
    return iab.read(folder / "exclude.txt", include and folder / "include.txt")


@pytest.mark.parametrize(("text", "robot"), [
    ("My CRAWLER", True), ("fetcher", False), ("a Fetcher x", True), ("java/1.8", True), ("use java", False), ("JAVAX", False),
    ("Java Java.Desktop", False), ("a tool", True), ("toolbar", True), ("toolkit", True), ("toolbar toolkit", False),
    ("retired", False), ("agent # 1", True), ("agent # 2", False), ("Mozilla/5.0", False), ("", False),
    ("cr\u212awl", False), ("x" * 1_999 + "crawl", False)], ids=lambda value: str(value)[:30])
def test_known_robots_of_the_iab(tmp_path, text, robot):
    alone, both = Robots(lists(tmp_path)), Robots(lists(tmp_path, include=INCLUDE))
    assert alone.judge([text]).tolist() == [robot]
    twice = robot or not text.startswith("Mozilla/")
    assert both.judge([text]).tolist() == [twice]
    assert both.judge([f"Mozilla/5.0 {text}"]).tolist() == alone.judge([f"Mozilla/5.0 {text}"]).tolist()
    travelled = pickle.loads(pickle.dumps(both))
    assert travelled.judge([text, "Opera", "x Mozilla/", "Old"]).tolist() == [twice, False, True, True]


def test_facts_of_the_iabs_files(tmp_path):
    (one, two) = lists(tmp_path, include=INCLUDE).facts
    assert (one.name, one.reason, one.version) == ("exclude.txt", "robot", "202610_25-091508")
    assert (one.date, one.entries) == (date(2026, 10, 25), 6)
    assert (two.version, two.date, two.entries) == (None, date(2026, 10, 25), 2) and one.checksum != two.checksum
    assert Robots(lists(tmp_path)).facts == (robots.facts(), one)
    assert lists(tmp_path, "# Use \u201c,\u201d".encode("cp1252") + b"\r\nx|1||0|2|0\r\n").robots == (iab.Entry("x", False),)


@pytest.mark.parametrize("line", [
    "x", "x|1", "x|1||0|2", "x|1||0|2|0||", "|1||0|2|0", " |1||0|2|0", "x|2||0|2|0", "x|||0|2|0", "x|1||2|2|0", "x|1||0|3|0",
    "x|1||0|2|y", "x|1||0|2|0|soon", "x|1||0|01|0", "\x1b[31m|1|2" + "y" * 500], ids=lambda line: line[:30])
def test_a_malformed_line_of_the_iabs_is_named(tmp_path, line):
    with pytest.raises(PolicyError) as error:
        lists(tmp_path, f"# head\nfine|1||0|2|0\n{line}\n")
    told = str(error.value)
    assert told.startswith(f"{tmp_path / 'exclude.txt'}, line 3: ") and told.isprintable() and len(told) < 300
    with pytest.raises(PolicyError):
        lists(tmp_path, include="Mozilla|1\n")


def test_no_file_no_entries(tmp_path):
    for exclude in ("", "# only\n", "x|0||0|2|0\n"):
        with pytest.raises(PolicyError, match="no active entry"):
            lists(tmp_path, exclude)
    with pytest.raises(PolicyError, match="none.txt: No such file"):
        iab.read(tmp_path / "none.txt")


def test_networks_of_the_iab_may_have_bits_behind_their_prefix(tmp_path):
    (tmp_path / "ips.txt").write_text("203.0.113.225/27\n198.51.100.7\n")
    found = iab.read_networks(tmp_path / "ips.txt")
    assert found.networks == (ip_network("203.0.113.224/27"), ip_network("198.51.100.7/32")) and found.facts.reason == "listed"


words = st.sampled_from(["bot", "robot", "ab", "b", "java", "JAVA", "x", "é", "É"])


@given(st.lists(st.tuples(words, st.booleans(), st.lists(words, max_size=2)), min_size=1, max_size=6),
       st.none() | st.lists(st.tuples(words, st.booleans()), min_size=1, max_size=3),
       st.lists(st.lists(words | st.just(" "), max_size=4).map("".join), max_size=6))
def test_the_iabs_check_entry_by_entry(exclude, include, texts):
    def has(text, pattern, at_start=False):
        return text.lower().startswith(pattern.lower()) if at_start else pattern.lower() in text.lower()

    licensed = iab.Iab(tuple(iab.Entry(p.lower(), s, tuple(x.lower() for x in xs)) for p, s, xs in exclude),
                       include and tuple(iab.Entry(p.lower(), s) for p, s in include), ())
    expected = [any(has(t, p, s) and not any(has(t, x) for x in xs) for p, s, xs in exclude)
                or (include is not None and not any(has(t, p, s) for p, s in include)) for t in texts]
    assert iab.Check(licensed).judge(texts).tolist() == expected


# -- files of networks ------------------------------------------------------------------------------------------------

def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "datacentres.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_of_networks(tmp_path):
    path = written(tmp_path, "\ufeff# Data centres\r\n#Version: 7 beta\r\n## DATE : 2026-11-01\r\n\r\n192.0.2.0/24   # one\r\n"
                             "  2001:db8::/32\r\n198.51.100.7#two\r\n::1\r\n::ffff:203.0.113.0/120\n# date: 2020-01-01\n0.0.0.0/0")
    found = networks.read(path, "datacentre")
    assert found.networks == tuple(map(ip_network, (
        "192.0.2.0/24", "2001:db8::/32", "198.51.100.7", "::1", "::ffff:203.0.113.0/120", "0.0.0.0/0")))
    facts = found.facts
    assert (facts.name, facts.reason, facts.version) == ("datacentres.txt", "datacentre", "7 beta")
    assert (facts.date, facts.entries) == (date(2026, 11, 1), 6)
    assert facts.stamp == f"datacentre:datacentres.txt@7_beta@2026-11-01#{facts.checksum}"
    undated = networks.read(written(tmp_path, "10.0.0.0/8\n# date: 2026-11-01"), "listed").facts
    assert undated.date is undated.version is None and undated.age(TODAY) is None and undated.checksum != facts.checksum


NEITHER = [
    "ad.example", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/255.0.0.0", "10.0.0.0/+8", "10.0.0.0 /8", "10.0.0", "10.0.0.0/8 10.1.0.0/16",
    "fe80::1%eth0", "fe80::%x/64", "010.0.0.1", "1", "/", ":", "١.2.3.4", "10.0.0.0/٨", "\x1b[2J\0", "x" * 1_000_000, "1:" * 500_000]


@pytest.mark.parametrize(("line", "why"), [
    ("10.0.0.1/8", "the network is 10.0.0.0/8"), ("2001:db8::1/32", "the network is 2001:db8::/32"),
    *((line, "neither") for line in NEITHER)], ids=lambda text: text[:30])
def test_a_malformed_network_is_named(tmp_path, line, why):
    path = written(tmp_path, f"# head\n10.0.0.0/8\n{line}\n")
    with pytest.raises(PolicyError) as error:
        networks.read(path, "datacentre")
    told = str(error.value)
    assert told.startswith(f"{path}, line 3: ") and why in told and told.isprintable() and len(told) < 300


@pytest.mark.parametrize(("text", "why"), [
    (b"\xff\xfe1\0", "not a text file"), ("", "no network"), ("# date: 2026-11-01\n", "no network"),
    ("\n# date: 2026-13-01\n::1", "line 2: no date"), ("# date: yesterday\n::1", "line 1: no date"),
    ("# date: 2026-W01-1\n::1", "line 1: no date")])
def test_a_file_that_is_no_list_of_networks(tmp_path, text, why):
    with pytest.raises(PolicyError, match=why):
        networks.read(written(tmp_path, text), "datacentre")
    with pytest.raises(PolicyError, match="none: No such file"):
        networks.read(tmp_path / "none", "datacentre")


def test_a_hundred_thousand_lines(tmp_path):
    path = written(tmp_path, "\n".join(
        f"{i >> 16}.{i >> 8 & 255}.{i & 255}.0/24" if i % 3 else f"2001:db8:{i & 65535:x}::/48" for i in range(100_000)))
    began = time.process_time()
    assert len(networks.read(path, "datacentre").networks) == 100_000
    assert time.process_time() - began < 5  # takes half a second


# -- facts and the command --------------------------------------------------------------------------------------------

def test_a_stamp_is_one_word():
    def stamp(name, version, made):
        return ListFacts(name, "listed", version, made, 1, "1a2b3c4d").stamp

    assert stamp("datacentres.txt", None, date(2026, 11, 1)) == "listed:datacentres.txt@2026-11-01#1a2b3c4d"
    assert stamp("a", "2026-11-01", date(2026, 11, 1)) == "listed:a@2026-11-01#1a2b3c4d"
    assert stamp("a", "a", None) == "listed:a@a#1a2b3c4d"
    assert stamp("my list\n:@#é.txt", "v 1", None) == "listed:my_list_____.txt@v_1#1a2b3c4d"


def of_age(days: int | None, name: str = "a.txt") -> ListFacts:
    made = None if days is None else date.fromordinal(TODAY.toordinal() - days)
    return ListFacts(name, "datacentre", None, made, 12_345, "1a2b3c4d")


def test_lists_past_ninety_days_are_warned_of(capsys):
    command.show([of_age(90), of_age(91, "b.txt"), of_age(None, "c.txt")], TODAY)
    out, err = capsys.readouterr()
    assert [line.split("\t") for line in out.splitlines()] == [
        ["list", "reason", "entries", "version", "date", "age in days", "checksum"],
        ["a.txt", "datacentre", "12,345", "-", "2026-08-25", "90", "1a2b3c4d"],
        ["b.txt", "datacentre", "12,345", "-", "2026-08-24", "91 !", "1a2b3c4d"],
        ["c.txt", "datacentre", "12,345", "-", "-", "unknown !", "1a2b3c4d"]]
    assert err.splitlines() == ["measurement: warning: the list b.txt (datacentre): it is 91 days old, more than 90",
                                "measurement: warning: the list c.txt (datacentre): its age is not known"]
    command.show_json([of_age(91)], TODAY)
    out, err = capsys.readouterr()
    assert json.loads(out) == [{"name": "a.txt", "reason": "datacentre", "version": None, "date": "2026-08-24", "entries": 12_345,
                                "checksum": "1a2b3c4d", "age_days": 91, "stale": True}] and "91 days" in err


def test_on_a_terminal_the_lists_are_a_table(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    command.show([of_age(91, "old[bold].txt")], TODAY)
    plain = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert {"old[bold].txt", "91 !", "12,345"} <= {cell.strip() for cell in plain.split("│")}


def test_console_command(monkeypatch, capsys, tmp_path):
    def asked(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["measurement", "lists", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code

    assert asked() == 0 and "crawler-user-agents\trobot\t" in capsys.readouterr().out
    assert asked("--json") == 0 and json.loads(capsys.readouterr().out)[0]["checksum"] == robots.facts().checksum
    assert asked("--policy", Path(__file__).parents[1] / "config" / "policy.yaml") == 0
    capsys.readouterr()
    assert asked("--policy", tmp_path / "none.yaml") == 2
    assert capsys.readouterr().err.count("\n") == 1


# -- verdicts by value ------------------------------------------------------------------------------------------------

class Counting:
    """Judges texts by their length, and keeps what it was asked."""

    def __init__(self):
        self.asked: list[str] = []

    def __call__(self, texts):
        self.asked += texts
        return np.array([len(t) % 5 for t in texts], np.uint8)


@given(st.lists(st.lists(st.text(max_size=8), max_size=30), max_size=6), st.integers(1, 20))
def test_verdicts_by_value(batches, limit):
    judge = Counting()
    verdicts = ByValue(judge, limit)
    for texts in batches:
        assert verdicts.verdicts(*slices(texts)).tolist() == [len(t) % 5 for t in texts]
        assert verdicts._keys.rows <= max([limit, *map(len, batches)])
    assert "" not in judge.asked


def test_each_text_is_asked_for_once():
    judge = Counting()
    verdicts, texts = ByValue(judge), [f"agent {i % 700}" for i in range(5_000)]
    buf, starts, lengths = slices(texts)
    lengths[::11] = -1
    for _ in range(3):
        assert verdicts.verdicts(buf, starts, lengths).tolist() == [0 if n < 0 else n % 5 for n in lengths.tolist()]
    assert len(judge.asked) == 700 == len(set(judge.asked))


def test_a_flood_of_user_agents_does_not_grow_the_table():
    verdicts = ByValue(Counting(), limit=5_000)
    for i in range(40):
        verdicts.verdicts(*slices([f"{i} {j}" for j in range(1_000)]))
    assert len(verdicts._keys.hi) <= 20_000 and len(verdicts._kept) <= 20_000


@pytest.mark.parametrize("letter", ["a", "é", "€", "😀"])
def test_only_the_first_bytes_count(letter):
    """Cut at any byte of a character, what is judged has all the characters that count."""
    judge = Counting()
    for shift in range(4):
        long = "x" * shift + letter * 300_000
        ByValue(judge, at_most=JUDGED_BYTES).verdicts(*slices([long]))
        assert long.startswith(judge.asked[-1]) and JUDGED_CHARACTERS <= len(judge.asked[-1]) <= JUDGED_BYTES
    verdicts, judge.asked = ByValue(judge, at_most=JUDGED_BYTES), []
    verdicts.verdicts(*slices([letter * 100_000 + "1", letter * 100_000 + "2"]))
    assert len(judge.asked) == 1
