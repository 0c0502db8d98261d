"""Consent from TC and GPP strings: published examples, made strings of known content, and damaged ones, against an oracle."""

import json
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import oracle_consent as oracle
from measurement.rules import gpp
from measurement.rules.bits import Bits, Malformed
from measurement.rules.consent import LONGEST, Asked, granted
from oracle_consent import FLAG_FIRST, LARGEST_FIRST, WAYS, Consent, fibonacci, gpp_string

PUBLISHED = json.loads((Path(__file__).parent / "data" / "consent_strings.json").read_text())
MEASURE = Asked()
SERVICE_SPECIFIC = 138  # the bit of a core segment
HELD = Consent(purposes={1, 7}, vendors={2, 28, 29, 755}, disclosed={2, 28, 29, 755})


def held(**changed) -> Consent:
    return Consent(**{**vars(HELD), **changed})


def answer(consent: Consent, vendor: int = 0, purposes: tuple[int, ...] = (7,)) -> bool:
    return granted(consent.tc_string(), Asked(vendor, purposes))


# --- Published strings ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", PUBLISHED["tc"], ids=lambda case: case["name"])
def test_published_tc_strings(case):
    text, purposes, vendors = case["text"], case["purposes"], case["vendors"]
    if case.get("global"):
        assert not granted(text, Asked(0, ()))
        text = flipped(text, SERVICE_SPECIFIC // 6, 5 - SERVICE_SPECIFIC % 6)
    if case.get("too_late"):
        assert not granted(text, Asked(0, ()))
        assert text[7] == "Q"
        text = text[:7] + "P" + text[8:]  # LastUpdated begins with the eighth character; this is some three years earlier
    for form in text, gpp_string({2: text}), gpp_string({2: text, 6: "1YNN", 8: "BAAAAABA.QA"}):
        for purpose in range(1, 26):
            assert granted(form, Asked(0, (purpose,))) == (purpose in purposes)
        found = [vendor for vendor in range(1, 1600) if granted(form, Asked(vendor, tuple(purposes)))]
        assert found == vendors or len(found) == vendors


@pytest.mark.parametrize("case", PUBLISHED["no_consent"], ids=lambda case: case["why"])
def test_published_strings_that_hold_no_consent(case):
    assert not granted(case["text"], Asked(0, ())) and not granted(case["text"], MEASURE)
    assert not oracle.granted(case["text"], 0, ())


@pytest.mark.parametrize("case", PUBLISHED["canada"], ids=lambda case: case["name"])
def test_published_canadian_sections(case):
    text = gpp_string({5: case["text"]})
    for purpose in range(1, 25):
        assert granted(text, Asked(0, (purpose,))) == (purpose in case["purposes"])
    for vendor in range(1, 1400):
        assert granted(text, Asked(vendor, tuple(case["purposes"]))) == (vendor in case["vendors"])


@pytest.mark.parametrize("header, numbers", PUBLISHED["gpp_headers"])
def test_published_gpp_headers(header, numbers):
    parts = [f"section-{number}" for number in numbers]
    assert gpp.sections("~".join([header, *parts])) == dict(zip(numbers, parts))
    for wrong in [*parts, "another"], parts[:-1]:
        if wrong != parts:
            with pytest.raises(Malformed):
                gpp.sections("~".join([header, *wrong]))


@pytest.mark.parametrize("number, code", [
    (1, "11"), (2, "011"), (3, "0011"), (4, "1011"), (5, "00011"), (6, "10011"), (7, "01011"),
])
def test_published_fibonacci_codes(number, code):
    assert fibonacci(number) == code
    assert Bits(oracle.characters(code + "0101")).fibonacci() == number


@pytest.mark.parametrize("text", [
    "DBABTA~1YNN", "DBABLA~BVQqAAAAAgA.QA", "DBABLA~CAAAVVVVVVRA.QA", "DBABLA~BAAAVVVVUQA.QA", "DBAA",
])
def test_sections_of_the_united_states_grant_nothing(text):
    assert gpp.sections(text).keys() <= {6, 7}
    assert not granted(text, Asked(0, ()))


# --- Which strings are valid ---------------------------------------------------------------------------------

def test_version_and_scope():
    assert answer(HELD)
    assert not answer(held(version=1)) and not answer(held(version=3))
    assert not answer(held(service_specific=False))


@pytest.mark.parametrize("updated, policy, disclosed, valid", [
    ("2020-03-09", 2, None, True), ("2023-09-30", 2, None, True), ("2023-09-30", 3, None, True),
    ("2023-10-01", 3, None, False), ("2023-10-01", 2, {755}, False), ("2023-10-01", 4, None, True),
    ("2024-08-01", 5, None, True), ("2026-02-28", 5, None, True), ("2026-02-28", 4, {755}, True),
    ("2026-03-01", 5, None, False), ("2026-03-01", 4, None, False), ("2026-03-01", 5, {755}, True),
    ("2026-03-01", 4, set(), True), ("2100-01-01", 63, {755}, True), ("2100-01-01", 63, None, False),
])
def test_versions_of_the_framework(updated, policy, disclosed, valid):
    consent = held(updated=updated, policy=policy, disclosed=disclosed)
    assert answer(consent) == valid == consent.grants(0, {7})
    assert granted(gpp_string({2: consent.tc_string()}), MEASURE) == valid


def test_segments_come_in_any_order_and_once():
    text = held(allowed={9}, publisher_purposes=3).tc_string()
    core, publisher, allowed, disclosed = text.split(".")
    for others in [disclosed, allowed, publisher], [allowed, publisher, disclosed], [disclosed]:
        assert granted(".".join([core, *others]), Asked(755))
    for others in [disclosed, disclosed], [publisher, disclosed, publisher], [""], ["A"], ["AAAA"], [core], ["gAAA"]:
        assert not granted(".".join([core, *others]), MEASURE)
    assert not granted(core + ".", MEASURE) and not granted("." + core, MEASURE)


# --- What consent is -----------------------------------------------------------------------------------------

def test_every_purpose_needs_consent():
    assert answer(held(purposes={7, 8, 10}), purposes=(7, 8, 10))
    assert not answer(held(purposes={7, 8}), purposes=(7, 8, 10))
    assert answer(held(purposes={1, 24}), purposes=(1, 24)) and not answer(held(purposes={7}), purposes=(25,))
    assert answer(held(purposes=set()), purposes=())


def test_legitimate_interest_is_no_consent():
    assert not answer(held(purposes={1}, interests={7}))
    assert not answer(held(vendors={2}, vendor_interests={755}), vendor=755)


@pytest.mark.parametrize("in_ranges", [False, True])
def test_vendors(in_ranges):
    consent = held(in_ranges=in_ranges)
    for vendor in range(1, 800):
        assert answer(consent, vendor) == (vendor in HELD.vendors)
    assert answer(held(vendors={1, 50_000}, disclosed=None, in_ranges=in_ranges), 50_000)
    assert not answer(held(vendors=set(), disclosed=None, in_ranges=in_ranges), 1)


def test_a_vendor_that_was_not_disclosed_has_no_consent():
    assert not answer(held(disclosed={2, 28}), 755) and answer(held(disclosed={2, 28})) and answer(held(disclosed=None), 755)


@pytest.mark.parametrize("restriction, taken", [
    ((7, 0, {755}), True), ((7, 1, {755}), False), ((7, 2, {755}), True), ((7, 3, {755}), False),
    ((8, 0, {755}), False), ((7, 0, {754, 756}), False), ((7, 0, {*range(700, 800)}), True), ((7, 0, set()), False),
])
def test_publisher_restrictions(restriction, taken):
    others = [(2, 0, {755}), (7, 1, {755}), (7, 0, {3})]
    for restrictions in [restriction], [restriction, *others], [*others, restriction]:
        consent = held(restrictions=restrictions)
        assert answer(consent, 755) == (not taken)
        assert answer(consent)  # a restriction is a vendor's
    assert answer(held(purposes={7, 8}, restrictions=[(7, 0, {755})]), 755, (8,))


def test_ranges_overlap_in_any_order():
    head = oracle.Tape(HELD.tc_string().split(".")[0]).left[:213]
    tail = f"{0:016b}0{0:012b}"
    entries = [(700, 800), (2, 2), (5, 755), (2, 2)]

    def text(largest, entries):
        written = "".join(f"0{a:016b}" if a == b else f"1{a:016b}{b:016b}" for a, b in entries)
        return oracle.characters(head + f"{largest:016b}1{len(entries):012b}" + written + tail)

    assert granted(text(800, entries), Asked(790)) and granted(text(800, entries), Asked(2))
    assert not granted(text(800, entries), Asked(3)) and not granted(text(800, entries), Asked(801))
    for largest, malformed in (799, entries), (800, [(9, 8)]), (1, [(2, 2)]):
        assert not granted(text(largest, malformed), MEASURE)
    assert granted(text(800, [(9, 8 + 1)]), MEASURE)


# --- GPP -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("in_ranges", [False, True])
def test_canada(way, in_ranges):
    def text(**changed):
        return gpp_string({5: held(in_ranges=in_ranges, **changed).canadian(way)})

    assert granted(text(), MEASURE) and granted(text(), Asked(755))
    assert not granted(text(), Asked(756)) and not granted(text(), Asked(0, (8,)))
    assert not granted(text(purposes={1}, interests={7}), MEASURE)  # implied consent
    assert not granted(text(restrictions=[(7, 0, {755})]), Asked(755)) and granted(text(restrictions=[(7, 0, {755})]), MEASURE)
    assert not granted(text(disclosed={2}), Asked(755)) and granted(text(disclosed=None, publisher_purposes=2), Asked(755))
    assert not granted(HELD.canadian(way), MEASURE)  # a section is no string of its own


@pytest.mark.parametrize("way", WAYS)
def test_a_canadian_section_ends_in_padding(way):
    text = Consent(purposes={7}, vendors={3}).canadian(way)
    assert granted(gpp_string({5: text + "AAA"}), MEASURE)
    for more in "AAAA", "AAB", "B", "_":
        assert not granted(gpp_string({5: text + more}), MEASURE)


def test_a_canadian_section_of_an_older_encoder_has_no_restrictions():
    bits = oracle.Tape(HELD.canadian(LARGEST_FIRST).split(".")[0]).left
    end = 199 + 17 + len(oracle.fibonacci_range(HELD.vendors)) + 17 + 12
    section = oracle.characters(bits[:end])
    assert len(section) * 6 < end + 12 and granted(gpp_string({5: section}), Asked(755))
    assert not granted(gpp_string({5: oracle.characters(bits[: end - 6])[:-1]}), MEASURE)


def test_canadian_section_is_of_version_1():
    for first in "AC":
        assert not granted(gpp_string({5: first + HELD.canadian(FLAG_FIRST)[1:]}), MEASURE)
    assert not granted(gpp_string({5: HELD.tc_string()}), MEASURE)
    assert not granted(gpp_string({2: HELD.canadian(FLAG_FIRST)}), MEASURE)


def test_of_two_sections_both_must_hold_the_consent():
    yes, no = HELD, held(purposes={1})
    for european, canadian, both in (yes, yes, True), (yes, no, False), (no, yes, False), (no, no, False):
        parts = {2: european.tc_string(), 5: canadian.canadian(LARGEST_FIRST), 6: "1YNN"}
        assert granted(gpp_string(parts), Asked(755)) == both
    assert not granted(gpp_string({2: yes.tc_string(), 5: "B"}), MEASURE)
    assert granted(gpp_string({2: yes.tc_string(), 4: "?", 7: "", 27: "B"}), MEASURE)


def test_gpp_headers_that_do_not_parse():
    tc = HELD.tc_string()
    good = gpp_string({2: tc})
    assert good == "DBABM~" + tc and granted(good, MEASURE)
    for header in "DBAB", "DBA", "D", "DCABM", "DBABA", "DBAAM", "DBACM", "DBABM=", "DBABM.":
        assert not granted(f"{header}~{tc}", MEASURE)
    for text in "DBABM", "DBABM~", good + "~", good + "~" + tc, "~" + good, "DBABM~~" + tc:
        assert not granted(text, MEASURE)


# --- Strings that are damaged --------------------------------------------------------------------------------

@pytest.mark.parametrize("text", [
    "", " ", "C", "CC", "D", "D~", "C.", ".", "~", "1YNN", "\x00", "C\ud800", "Cé", "null", "C" * 999, "D" * 999, "C." * 999,
    "BOEFEAyOEFEAyAHABDENAI4AAAB9vABAASA",
])
def test_no_consent_strings(text):
    assert not granted(text, Asked(0, ()))


def test_only_the_web_safe_alphabet_without_padding():
    text = HELD.tc_string().split(".")[0]
    assert granted(text, MEASURE)
    for end in "=", "==", "+", "/", " ", "\n", "\x00", "!", "é", "\ud800", "!!!!", "====", "++++":
        assert not granted(text + end, MEASURE) and not granted(text[:20] + end + text[20:], MEASURE)
    assert not granted(" " + text, MEASURE)


def test_padding_is_free_and_every_field_is_needed():
    core = held(disclosed=None).tc_string()
    for zeros in range(30):
        assert granted(core + "A" * zeros, MEASURE)
    bare = Consent(purposes={7}).tc_string()  # 213 bits, two sections of 29 bits and 12 bits of restrictions: 47.2 characters
    assert len(bare) == 48 and granted(bare, MEASURE) and not granted(bare[:-1], MEASURE)
    whole = held(whole=24).tc_string()
    assert all(len(segment) % 4 == 0 for segment in whole.split(".")) and granted(whole, Asked(755))


def test_a_long_string_is_not_looked_at():
    text = held(disclosed=None).tc_string()
    assert granted(text.ljust(LONGEST, "A"), MEASURE)
    assert not granted(text.ljust(LONGEST + 1, "A"), MEASURE)
    assert not granted("C" * 1_000_000, MEASURE)


class Reads:
    """Counts reads of bits, and the bits that they take."""

    def __init__(self, monkeypatch):
        self.count = self.bits = 0
        for name in "take", "field":
            monkeypatch.setattr(Bits, name, self._counted(getattr(Bits, name), name))

    def _counted(self, read, name):
        def counted(bits, count, *rest):
            self.count += 1
            self.bits += count if name == "take" else 8
            return read(bits, count, *rest)
        return counted


def hostile(form: str, characters: int) -> str:
    """A string of about ``characters`` that has as many entries as fit, each as wide as can be."""
    digits, head = 6 * characters, oracle.Tape(HELD.tc_string()[:36]).left[:213]
    entry = f"1{1:016b}{65535:016b}"
    if form == "ranges":
        count = min((digits - 300) // len(entry), 4095)
        bits = head + f"{65535:016b}1{count:012b}" + entry * count + f"{0:016b}0{0:012b}"
    elif form == "restrictions":
        count = min((digits - 300) // (20 + len(entry)), 4095)
        bits = head + f"{0:016b}0" * 2 + f"{count:012b}" + (f"{7:06b}00{1:012b}" + entry) * count
    elif form == "segments":
        return "C" + "." * (characters - 1)
    elif form == "header":
        return "DB" + oracle.characters(f"{4095:012b}" + "111" * (digits // 3)) + "~"
    else:
        count = (digits - 300) // (5 * 3)
        full = f"1{count:012b}" + "011" * count  # the shortest entries, in five lists
        head = oracle.Tape(HELD.canadian(FLAG_FIRST)[:34]).left[:199]
        return gpp_string({5: oracle.characters(head + full * 2 + f"{3:012b}" + (f"{7:06b}00" + full) * 3)})
    return oracle.characters(bits)


@pytest.mark.parametrize("form", ["ranges", "restrictions", "segments", "header", "canada"])
def test_work_is_linear_in_the_length(form, monkeypatch):
    reads = Reads(monkeypatch)
    for length in LONGEST // 8, LONGEST // 2, LONGEST:
        text = hostile(form, length)
        reads.count = reads.bits = 0
        granted(text[:LONGEST], Asked(65535))
        # A Canadian section is read in three ways, and for each Fibonacci integer, be it of two bits, the longest is looked at.
        ways, ahead = (3, 12) if form in ("canada", "header") else (1, 1)
        assert reads.count <= 4 * ways * len(text) + 30
        assert reads.bits <= 6 * ways * ahead * len(text) + 300
    if form == "ranges":
        assert granted(text, Asked(65535))


# --- At random -----------------------------------------------------------------------------------------------

IDS = st.integers(1, 60) | st.integers(1, 65535)
VENDORS = st.sets(IDS, max_size=12) | st.builds(lambda a, n: set(range(a, a + n)), st.integers(1, 900), st.integers(1, 90))
PURPOSE = st.sampled_from([1, 2, 7, 8, 10, 24])
DAYS = ["2020-03-09", "2023-09-30", "2023-10-01", "2026-02-28", "2026-03-01"]
CONSENTS = st.builds(
    Consent, updated=st.sampled_from(DAYS), policy=st.sampled_from([2, 3, 4, 5, 6]), version=st.sampled_from([2] * 9 + [1, 3]),
    service_specific=st.sampled_from([True] * 9 + [False]),
    purposes=st.sets(PURPOSE).map(lambda p: p | {7}) | st.sets(PURPOSE), interests=st.sets(PURPOSE),
    vendors=VENDORS, vendor_interests=VENDORS,
    restrictions=st.lists(st.tuples(PURPOSE, st.integers(0, 3), VENDORS), max_size=3),
    disclosed=st.none() | VENDORS, allowed=st.none() | VENDORS, publisher_purposes=st.none() | st.integers(0, 63),
    in_ranges=st.booleans(), whole=st.sampled_from([6, 8, 24]),
)
PURPOSES = st.lists(PURPOSE, max_size=3, unique=True).map(tuple)


def a_vendor(consent: Consent):
    near = sorted(consent.vendors | (consent.disclosed or set()))[:20]
    return st.just(0) | IDS | (st.sampled_from(near) if near else st.just(1))


@given(CONSENTS, PURPOSES | st.just((7,)), st.data())
def test_a_made_tc_string_says_what_was_put_in(consent, purposes, data):
    vendor = data.draw(a_vendor(consent))
    text = consent.tc_string()
    if len(text) < 9_000:
        truth = consent.grants(vendor, purposes)
        for form in text, gpp_string({2: text}), gpp_string({2: text, 8: "BAAAAABA.QA"}):
            assert granted(form, Asked(vendor, purposes)) == truth == oracle.granted(form, vendor, purposes)


@given(CONSENTS, PURPOSES | st.just((7,)), st.sampled_from(WAYS), st.data())
def test_a_made_canadian_section_says_what_was_put_in(consent, purposes, way, data):
    vendor = data.draw(a_vendor(consent))
    text = gpp_string({5: consent.canadian(way)})
    if len(text) < 9_000:
        found = granted(text, Asked(vendor, purposes))
        assert found == oracle.granted(text, vendor, purposes)
        truth = consent.consents(vendor, purposes)
        # Another way to read it may fit as well; then both must hold the consent, and the purposes are the same in all.
        assert found <= truth and (vendor or found == truth)


GOOD = [case["text"] for case in PUBLISHED["tc"]] + [gpp_string({5: case["text"]}) for case in PUBLISHED["canada"]]
MADE = st.one_of(
    CONSENTS.map(Consent.tc_string), CONSENTS.map(lambda c: gpp_string({2: c.tc_string(), 7: "BAAAVVVVUQA.QA"})),
    st.builds(lambda c, way: gpp_string({5: c.canadian(way)}), CONSENTS, st.sampled_from(WAYS)),
)
STRINGS = (st.sampled_from(GOOD) | MADE).filter(lambda text: len(text) < 3_000)


def same(text: str) -> None:
    for vendor, purposes in (0, ()), (0, (7,)), (28, (7,)), (3, (7, 10)):
        assert granted(text, Asked(vendor, purposes)) == oracle.granted(text, vendor, purposes)


def flipped(text: str, at: int, bit: int) -> str:
    at %= len(text)
    if text[at] not in oracle.ALPHABET:
        return text
    return text[:at] + oracle.ALPHABET[oracle.ALPHABET.index(text[at]) ^ 1 << bit] + text[at + 1 :]


@settings(max_examples=400)
@given(STRINGS, st.lists(st.tuples(st.integers(0, 200) | st.integers(0, 2999), st.integers(0, 5)), min_size=1, max_size=4))
def test_flipped_bits(text, flips):
    for at, bit in flips:
        text = flipped(text, at, bit)
    same(text)


@given(STRINGS, st.integers(0, 2999), st.integers(0, 5))
def test_cut_strings(text, at, left):
    at %= len(text)
    same(text[:at])
    same(text[: len(text) - left])
    same(text[:at] + text[at + 1 :])


@given(STRINGS, st.integers(0, 2999), st.text(max_size=4) | st.sampled_from([".", "~", "=", "A", "..", "~~", "+"]))
def test_strange_characters(text, at, strange):
    at %= len(text)
    same(text[:at] + strange + text[at:])
    same(text[:at] + strange + text[at + 1 :])


@settings(max_examples=300)
@given(st.text(max_size=80) | st.text(oracle.ALPHABET + ".~", max_size=80))
@example("C")
@example("DBAA")
def test_any_text(text):
    for start in "", "C", "D", "CO", "DBABM~", "DBABM~C", "DBABD~B":
        same(start + text)


@given(st.binary(max_size=200))
def test_any_bits(data):
    text = urlsafe_b64encode(data).decode().rstrip("=")
    same("C" + text)
    same(gpp_string({2: "C" + text}))
    same(gpp_string({5: "B" + text}))


def test_a_range_ends_at_the_largest_id():
    def entries(*numbers):
        return list(Bits(oracle.characters(f"{1:012b}1" + "".join(map(fibonacci, numbers)))).fibonacci_ranges())

    assert entries(65534, 1) == [(65534, 65535)] and entries(1, 65534) == [(1, 65535)]
    for numbers in (65535, 1), (2, 65534):
        with pytest.raises(Malformed):
            entries(*numbers)


def test_no_bit_is_numbered_0():
    bits = Bits("_A")
    bits.take(3)
    assert not bits.field(5, 0) and bits.take(4) == 0


@given(st.integers(1, 65535), st.integers(0, 40))
def test_fibonacci_integers(number, zeros):
    bits = Bits(oracle.characters("1" * 5 + fibonacci(number) + "0" * zeros + "1"))
    bits.take(5)
    assert bits.fibonacci() == number
    assert bits.take(zeros) == 0 and bits.take(1) == 1


@pytest.mark.parametrize("code", ["", "0", "1", "0" * 24, "01" * 12 + "1", fibonacci(65536), "0" * 24 + "11"])
def test_fibonacci_integers_that_do_not_end_or_are_too_large(code):
    bits = Bits(oracle.characters(code))
    with pytest.raises(Malformed):
        bits.fibonacci()
