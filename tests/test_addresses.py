"""Addresses and networks by compiled code, against Python's ``ipaddress`` over spellings good and bad."""

import ipaddress
import pickle
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from measurement.columnar.addresses import parse
from measurement.columnar.decode import decode_datums
from measurement.columnar.intervals import Networks
from measurement.columnar.judge import REASONS, judge
from measurement.model.events import FIELD_INDEX, FIELDS
from measurement.rules.viewability import Viewability
from strategies import encode_avro

ODD = [
    "", ":", "::", ":::", "::1", "1::", ":1", "1:", ":1::", "1::2:", ":1:2:3:4:5:6:7", "1:2:3:4:5:6:7:", "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::3:4:5:6:7:8", "1::2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7:8::", "1::2::3", "::1.2.3.4", "1.2.3.4::", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:1.2.3.4",
    "1:2:3:4:5::1.2.3.4", "1:2:3:4:5:6::1.2.3.4", "::1.2.3.4:5", "::01.2.3.4", "::1.2.3", "::1.2.3.4.5", "::1.2.3.256",
    "::ffff:1.2.3.4", "::FFFF:102:304", "0:0:0:0:0:ffff:1.2.3.4", "::fffe:1.2.3.4", "12345::", "::12345", "::g", "::-1",
    "::+1", ":: 1", " ::1", "::1 ", "::1\n", "::1\0", "0x1::", "::1/128", "[::1]", "２::", "::é", "fe80::1%eth0", "fe80::1%",
    "fe80::1%%", "fe80::1%a%b", "fe80::1%a/b", "fe80::1%é ü", "fe80::%1", "fe80:%1", "%1", "::1.2.3.4%x", "::1.2.%x",
    "1.2.3.4", "1.2.3", "1.2.3.4.", ".1.2.3.4", "1..2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.00", "0.0.0.0", "1.2.3.256",
    "255.255.255.255", "1.2.3.4%x", "1.2.3.4/32", "1.2.3.-4", "1.2.3.٤", "1.2.3.4 ", "1.2.3.4\n", "1.2.3.1234", "999.1.1.1",
    "localhost", "ad.example", "16909060", "0x01020304"]

PARTS = ["", *"0189afAFgG", ":", "::", ".", "%", "/", " ", "0", "ffff", "10000", "255", "256", "1.2.3.4", "é", "\0", "٣"]
values = st.integers(0, 2**128 - 1) | st.integers(0, 2**32 - 1) | st.builds(lambda n: 0xFFFF << 32 | n, st.integers(0, 2**32 - 1))


@st.composite
def spelled(draw) -> str:
    """A valid address in one of its many spellings."""
    address = ipaddress.IPv6Address(draw(values))
    if draw(st.booleans()) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    short = ":".join(f"{int(group, 16):x}" for group in address.exploded.split(":"))
    text = draw(st.sampled_from([address.compressed, address.exploded, short]))
    if draw(st.booleans()) and "::" not in text[-5:]:
        head, _, last = text.rpartition(":")
        head, colon, before = head.rpartition(":")
        if before:
            text = f"{head}{colon}{ipaddress.IPv4Address(int(before, 16) << 16 | int(last, 16))}"
    return (text.upper() if draw(st.booleans()) else text) + draw(st.sampled_from(["", "", "", "%eth0", "%é"]))


@st.composite
def mutated(draw) -> str:
    text = list(draw(spelled()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 2))] = draw(st.sampled_from(PARTS))
    return "".join(text)


def slices(texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    raw = [text.encode() for text in texts]
    lengths = np.array([len(r) for r in raw], np.int32)
    return np.frombuffer(b"".join(raw) + b"7", np.uint8), np.cumsum(lengths) - lengths, lengths


def expected(text: str) -> int | None:
    """The address in 128 bits, None if Python takes the text for none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return int(address) | (0xFFFF << 32 if address.version == 4 else 0)


def read(texts: list[str]) -> list[int | None]:
    hi, lo, good = parse(*slices(texts))
    assert not hi[~good].any() and not lo[~good].any()
    return [h << 64 | l if g else None for h, l, g in zip(hi.tolist(), lo.tolist(), good.tolist())]


def test_odd_spellings():
    assert read(ODD) == [expected(text) for text in ODD]


@given(st.lists(spelled(), min_size=1, max_size=20))
def test_addresses_are_read_as_python_reads_them(texts):
    assert read(texts) == [expected(text) for text in texts]
    assert None not in read(texts)


@given(st.lists(mutated() | st.lists(st.sampled_from(PARTS), max_size=12).map("".join) | st.text(max_size=50), min_size=1,
    max_size=20))
def test_whatever_the_text_python_agrees(texts):
    assert read(texts) == [expected(text) for text in texts]


def test_an_address_is_read_wherever_it_stands():
    buf = np.frombuffer(b"1.2.3.45::1", np.uint8)
    hi, lo, good = parse(buf, np.array([0, 0, 8, 7, 0]), np.array([7, 8, 3, 4, -1], np.int32))
    assert good.tolist() == [True, True, True, True, False]
    assert (lo & np.uint64(0xFFFFFFFF)).tolist() == [0x01020304, 0x0102032D, 1, 1, 0] and hi[3] == 5 << 48


def test_a_mapped_address_is_the_ipv4_address():
    assert len(set(read(["10.1.2.3", "::ffff:10.1.2.3", "::ffff:a01:203", "0:0:0:0:0:FFFF:0A01:0203%x"]))) == 1


def test_judging_an_event_reads_its_address():
    texts = [None, "1.2.3.4", "::FFFF:1.2.3.4", "2001:db8::1%x", "1.2.3.04", "2001:db8", "ad.example"]
    event = {**dict.fromkeys(FIELDS), "event_id": "e", "event_type": "impression", "event_time": 1_772_409_600_000_000,
             "advertiser_id": "a", "campaign_id": "c"}
    decoded = decode_datums([encode_avro({**event, "ip": text}) for text in texts])
    clocks = np.full(len(texts), event["event_time"])
    judged = judge(decoded.buf, decoded.values, decoded.lengths, clocks, Viewability())
    assert [REASONS[r] for r in judged["reason"].tolist()] == [""] * 4 + ["bad_value"] * 3
    assert judged["field"].tolist() == [-1] * 4 + [FIELD_INDEX["ip"]] * 3
    found = [h << 64 | l for h, l in zip(judged["ip_hi"].tolist(), judged["ip_lo"].tolist())]
    assert found[:4] == [0, *map(expected, texts[1:4])]
    early = judge(decoded.buf, decoded.values, decoded.lengths, clocks - 3_600_000_000, Viewability())
    assert [REASONS[r] for r in early["reason"].tolist()] == ["future"] * 4 + ["bad_value"] * 3


@pytest.mark.parametrize("piece", ["1", "f:", ":", "1.", "%", "a%", "fe80::1%x", "é", "::"])
def test_a_long_text_costs_no_more_than_its_length(piece):
    texts = [piece * (size // len(piece)) for size in (100_000, 1_000_000)]
    assert read(texts) == [expected(text) for text in texts]
    took = []
    for text in texts:
        made, began = slices([text]), time.process_time()
        parse(*made)
        took.append(time.process_time() - began)
    assert took[1] < 1  # a second for what takes a millisecond; squared, it would take minutes


# -- networks ---------------------------------------------------------------------------------------------------------

def among(networks: Networks, texts: list[str]) -> list[bool]:
    hi, lo, good = parse(*slices(texts))
    assert good.all()
    return networks.has(hi, lo).tolist()


def brute(networks, texts: list[str]) -> list[bool]:
    found, networks = [], [_four(network) for network in networks]
    for text in texts:
        address = ipaddress.ip_address(text)
        address = getattr(address, "ipv4_mapped", None) or address
        found.append(any(address in network for network in networks if network.version == address.version))
    return found


def _four(network):
    mapped = ipaddress.ip_network("::ffff:0:0/96")
    if network.version == 6 and network.subnet_of(mapped):
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


# Few high bits, so that networks overlap, adjoin and stand beside what is looked up.
fours = st.builds(lambda a, p: ipaddress.IPv4Network((a, p), strict=False), st.sampled_from([0, 1 << 31, 2**32 - 1]).flatmap(
    lambda base: st.integers(0, 2**18).map(lambda d: (base ^ d) & 0xFFFFFFFF)), st.integers(0, 32))
sixes = st.builds(lambda a, p: ipaddress.IPv6Network((a, p), strict=False), st.sampled_from(
    [0, 0xFFFF << 32, 0x20010DB8 << 96, 2**128 - 1]).flatmap(lambda base: st.sampled_from([0, 40, 64, 110]).flatmap(
        lambda shift: st.integers(0, 255).map(lambda d: base ^ d << shift))), st.integers(0, 128))


@given(st.lists(fours | sixes, max_size=12), st.data())
@example([ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")], None)
def test_networks_hold_what_a_search_through_all_of_them_finds(given_, data):
    made = Networks(given_)
    texts = ["0.0.0.0", "255.255.255.255", "::", "::ffff:1.2.3.4", str(ipaddress.ip_address(2**128 - 1))]
    for network in given_:
        for value in (int(network.network_address) - 1, int(network.network_address), int(network.broadcast_address),
                      int(network.broadcast_address) + 1):
            if 0 <= value < 2**network.max_prefixlen:
                texts.append(str(type(network.network_address)(value)))
    if data is not None:
        texts += data.draw(st.lists(spelled(), max_size=5))
    assert among(made, texts) == among(pickle.loads(pickle.dumps(made)), texts) == brute(given_, texts)


def test_overlaps_doubles_and_neighbours_are_one_interval():
    def count(*texts):
        return len(Networks([ipaddress.ip_network(t) for t in texts]))

    assert count("10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8", "11.0.0.0/8") == 1
    assert count("10.0.0.0/25", "10.0.1.0/24") == count("2001:db8::/33", "2001:db9::/32") == 2
    assert count("::ffff:10.0.0.0/104", "10.0.0.0/8") == 1
    assert count() == 0 and not Networks([]).has(*(np.zeros(3, np.uint64),) * 2).any()


def test_many_networks():
    rng = np.random.default_rng(5)
    networks = [ipaddress.IPv4Network((int(a), int(p)), strict=False) for a, p in zip(
        rng.integers(0, 2**32, 2_000), rng.choice([12, 16, 20, 24, 32], 2_000))]
    networks += [ipaddress.IPv6Network((0x2001 + int(a) << 112 | int(b) << 64, int(p)), strict=False) for a, b, p in zip(
        rng.integers(0, 40, 2_000), rng.integers(0, 2**48, 2_000), rng.choice([24, 32, 40, 48, 64], 2_000))]
    texts = [str(ipaddress.ip_address(int(a))) for a in rng.integers(0, 2**32, 150)]
    texts += [str(ipaddress.ip_address(0x2001 + int(a) << 112 | int(b) << 64 | 1)) for a, b in zip(
        rng.integers(0, 40, 150), rng.integers(0, 2**48, 150))]
    found = among(Networks(networks), texts)
    assert found == brute(networks, texts) and {True, False} == set(found[:150]) == set(found[150:])
