"""The clean stream: impressions, what follows each, and conversions, as they happened, before any trouble in transit.

Everything hangs on a *group*: one impression with its possible follow-ups and a possible conversion. Which of its
events exist is drawn first, so that the log can be cut to an exact number of events; then the group's person, place
and time; then what each kind of event adds. Events stand kind by kind, each kind in the order of the impressions' time.
What groups have to do with each other, their people, is drawn in `journeys`.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from measurement.model.events import EVENT_TYPES, MICROS_PER_HOUR, MICROS_PER_SECOND
from measurement.simulate import journeys
from measurement.simulate import world as w
from measurement.simulate.agents import DEVICES, FIRST_HUMAN, FIRST_ROBOT, HUMAN, MOBILE, ROBOTS, TABLET
from measurement.simulate.columns import NO_ID, NO_IP, NULL, Booking, Columns
from measurement.simulate.ids import mix_all
from measurement.simulate.options import SimulateOptions


class Kind(IntEnum):
    """The events a group may have. The order is that in which the last group is cut: none without what it needs."""

    IMPRESSION = 0
    VIEW = 1
    VIEW_AGAIN = 2
    START = 3
    START_AGAIN = 4  # a player that reports its start twice, with two ids: both count, the impression starts once
    FIRST_QUARTILE = 5
    MIDPOINT = 6
    THIRD_QUARTILE = 7
    COMPLETE = 8
    CLICK = 9
    CLICK_AGAIN = 10
    CONVERSION = 11
    ORDER_AGAIN = 12  # the same order from another system under another event_id


TYPE_OF_KIND = np.array(
    [EVENT_TYPES.index(name) for name in (
        "impression", "viewability", "viewability", "start", "start", "firstQuartile", "midpoint", "thirdQuartile",
        "complete", "click", "click", "conversion", "conversion",
    )],
    np.uint8,
)
FOLLOW_UPS = range(Kind.VIEW, Kind.CONVERSION)
KEYS_PER_GROUP = 16  # key = group * KEYS_PER_GROUP + kind

# Shares by format (none, display, video, audio).
_VIEWED = np.array([0, 0.84, 0.90, 0.75], np.float32)
_STARTED = np.array([0, 0, 0.95, 0.96], np.float32)
_CLICKED = np.array([0, 0.011, 0.009, 0.003], np.float32)
_CONVERTED = np.array([0.0105, 0.2], np.float32)  # without and with a click
_PLAYS_ON = {  # each quartile of those that reached the one before
    Kind.FIRST_QUARTILE: 0.91, Kind.MIDPOINT: 0.92, Kind.THIRD_QUARTILE: 0.94, Kind.COMPLETE: 0.95,
}

# Impressions by hour of the day, UTC.
_RHYTHM = np.array(
    [30, 20, 14, 11, 11, 16, 28, 44, 56, 62, 66, 70, 76, 74, 72, 74, 80, 90, 104, 116, 120, 106, 78, 48], np.float64
)

_MINUTE = 60 * MICROS_PER_SECOND
_SESSION = 30 * _MINUTE
_PARTLY_BOOKED = {Booking.NO_LINE_ITEM: 0.001, Booking.NO_CREATIVE: 0.002, Booking.NO_PLACEMENT: 0.003}
_IPV4_FIRST = np.array([2, 31, 46, 62, 78, 82, 84, 87, 91, 95, 109, 151, 178, 188, 212, 217], np.uint64)


class Clean(NamedTuple):
    """The clean stream and what the generator knows about it; C events, G groups."""

    columns: Columns  # C
    kind: np.ndarray  # u1[C]
    group: np.ndarray  # i4[C]
    kind_ends: np.ndarray  # i8[13]: events of kind k stand in kind_ends[k-1]:kind_ends[k]
    impression_row: np.ndarray  # i4[G]: where the group's impression stands, -1 if it was never sent
    mobile: np.ndarray  # bool[C]: from a phone or tablet


def clean_events(
    world: w.World, options: SimulateOptions, count: int, rng: np.random.Generator, ways: np.random.Generator
) -> Clean:
    """Exactly `count` events; `ways` are the random numbers of people's journeys."""
    package, flags = _groups(world, options, count, rng)
    groups = package.size
    members = [np.flatnonzero(of_kind).astype(np.int32) for of_kind in flags]
    kind_ends = np.cumsum([m.size for m in members])
    group = np.concatenate(members)
    kind = np.repeat(np.arange(len(Kind), dtype=np.uint8), [m.size for m in members])
    span = [slice(end - m.size, end) for end, m in zip(kind_ends, members)]
    impression_row = np.full(groups, -1, np.int32)
    impression_row[members[Kind.IMPRESSION]] = np.arange(members[Kind.IMPRESSION].size, dtype=np.int32)

    # The group: when, where, who.
    time = _impression_times(options, groups, rng)
    form = world.format[package]
    country = world.countries[package, _rank(rng, groups, 0.86, 0.97)]
    device = world.devices[package, _rank(rng, groups, 0.75, 0.96)]
    pool = max(20, groups // 10)
    place = w.pool_of(country, device)
    person = journeys.people(
        world.advertiser[package], place, (rng.random(groups) ** 1.6 * pool).astype(np.int64), pool,
        flags[Kind.CLICK] | flags[Kind.CONVERSION], ways,
    )
    page = journeys.together(world.advertiser[package], place, ways)
    time, person = time[page], person[page]
    traits = mix_all(person, np.uint64(options.seed))
    human = _human_agents(device, traits)
    human[rng.random(groups, np.float32) < 0.01] = 0
    robot = rng.random(groups, np.float32) < options.robot_rate
    agent = np.where(robot, FIRST_ROBOT + rng.integers(0, len(ROBOTS), groups, np.int16), human)
    user = np.where(rng.random(groups, np.float32) < 0.94, person, NO_ID).astype(np.int32)
    ip = np.where(rng.random(groups, np.float32) < 0.02, NO_IP, _addresses(person // 3, options.seed))
    session = (person << 24) + (time - options.start_micros) // _SESSION
    experiment = world.experiment[package]
    experiment = np.where(experiment > 0, 2 * experiment - (traits & np.uint64(1)).astype(np.uint8), 0).astype(np.uint8)
    consent = w.consent_of(country, traits)
    booking = package * np.int32(len(Booking)) + _partly_booked(rng, groups)
    context = w.context_code(
        np.where(rng.random(groups, np.float32) < 0.001, np.uint8(0), form),
        np.where(rng.random(groups, np.float32) < 0.005, np.uint8(0), country),
        np.where(rng.random(groups, np.float32) < 0.003, np.uint8(0), device),
    )

    # The events: what their group gives them, ...
    total = group.size
    of_package = package[group]
    seller = np.where((of_package & 3) == 0, w.ADSERVER_US, w.ADSERVER_EU)
    columns = Columns(
        key=group.astype(np.int64) * KEYS_PER_GROUP + kind,
        event_type=TYPE_OF_KIND[kind],
        event_time=time[group],
        booking=booking[group],
        impression=np.full(total, NO_ID, np.int64),
        user=user[group],
        context=context[group],
        ip=ip[group],
        agent=agent[group].astype(np.int16),
        consent=consent[group],
        price=np.full(total, NULL, np.int32),
        currency=world.currency[of_package],
        visible_percent=np.full(total, NULL, np.int32),
        visible_ms=np.full(total, NULL, np.int32),
        audible_ms=np.full(total, NULL, np.int32),
        played_ms=np.full(total, NULL, np.int32),
        conversion_type=np.zeros(total, np.uint8),
        value=np.full(total, NULL, np.int64),
        order=np.full(total, NO_ID, np.int32),
        experiment=experiment[group],
        site=_site(seller, world.publisher[of_package]),
        session=session[group],
        spec=of_package + np.int32(1),
    )
    # ... and what their kind adds.
    followed = slice(kind_ends[Kind.IMPRESSION], kind_ends[Kind.CONVERSION - 1])
    columns.impression[followed] = group[followed].astype(np.int64) * KEYS_PER_GROUP
    _views(columns, span, form, world.publisher[package], members, rng)
    _quartiles(columns, span, world.duration[package], world.publisher[package], members, rng)
    for click in (Kind.CLICK, Kind.CLICK_AGAIN):
        delay = np.minimum(rng.exponential(25 + 60 * (click == Kind.CLICK_AGAIN), members[click].size), 3000)
        columns.event_time[span[click]] += (delay * MICROS_PER_SECOND).astype(np.int64) + MICROS_PER_SECOND
        journeys.click_people(columns, span[click], person[members[click]], ways)
    _double_clicks(columns, span, members, ways)
    _conversions(columns, span, flags, members, rng)
    seen = time.copy()
    seen[members[Kind.CLICK]] = columns.event_time[span[Kind.CLICK]]
    end = options.start_micros + int(options.hours * MICROS_PER_HOUR) + journeys.AFTERWARDS
    journeys.conversions(
        columns, span[Kind.CONVERSION], seen[members[Kind.CONVERSION]], end, int(person.max()) + 3, ways)
    _second_reports(columns, span, members, rng)
    journeys.second_reports(columns, span[Kind.ORDER_AGAIN], ways)
    _prices(columns, span, world, package, members, rng)
    _robots_among_people(columns, span, robot, human, members, options.robot_rate, rng)
    on_the_move = (device == MOBILE) | (device == TABLET)
    return Clean(columns, kind, group, kind_ends, impression_row, on_the_move[group])


def _groups(
    world: w.World, options: SimulateOptions, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Packages (i4[G]) and which events exist (bool[13, G]) of as many groups as have exactly `count` events."""
    packages, flags, missing = [], [], count
    while missing > 0:
        size = max(64, int(missing / 2.8))
        package = np.searchsorted(world.share, rng.random(size), side="right").astype(np.int32)
        exists = _existing(world.format[package], options, rng)
        ends = np.cumsum(exists.sum(axis=0))
        last = int(np.searchsorted(ends, missing))
        if last < size:  # the group in which the count is reached keeps only its first events
            package, exists = package[: last + 1], exists[:, : last + 1]
            exists[np.flatnonzero(exists[:, last])[exists[:, last].sum() - (ends[last] - missing):], last] = False
        packages.append(package)
        flags.append(exists)
        missing -= int(exists.sum())
    return np.concatenate(packages), np.concatenate(flags, axis=1)


def _existing(form: np.ndarray, options: SimulateOptions, rng: np.random.Generator) -> np.ndarray:
    size = form.size
    exists = np.zeros((len(Kind), size), np.bool_)

    def draw(share: float | np.ndarray) -> np.ndarray:
        return rng.random(size, np.float32) < share

    exists[Kind.VIEW] = draw(_VIEWED[form])
    exists[Kind.VIEW_AGAIN] = exists[Kind.VIEW] & draw(0.06)
    exists[Kind.START] = draw(_STARTED[form])
    exists[Kind.START_AGAIN] = exists[Kind.START] & draw(0.005)
    reached = exists[Kind.START]
    for quartile, share in _PLAYS_ON.items():
        exists[quartile] = reached = reached & draw(share)
    exists[Kind.CLICK] = draw(_CLICKED[form])
    exists[Kind.CLICK_AGAIN] = exists[Kind.CLICK] & draw(0.08)
    exists[Kind.CONVERSION] = draw(_CONVERTED[exists[Kind.CLICK].astype(np.uint8)])
    exists[Kind.ORDER_AGAIN] = exists[Kind.CONVERSION] & draw(0.6 * options.order_repeat_rate)
    # Never-sent impressions, as many as make the wanted share of orphans among all events.
    follow_ups = exists[Kind.VIEW : Kind.CONVERSION].sum() / size
    everything = 1 + follow_ups + exists[Kind.CONVERSION :].sum() / size
    lost = min(1.0, options.orphan_rate * everything / (follow_ups + options.orphan_rate))
    exists[Kind.IMPRESSION] = ~draw(lost)
    return exists


def _impression_times(options: SimulateOptions, groups: int, rng: np.random.Generator) -> np.ndarray:
    """Ascending micros (i8[G]) over the span, dense and sparse with the day."""
    edges = np.append(np.arange(0, options.hours), options.hours)
    first_hour = options.start_micros // MICROS_PER_HOUR
    weight = _RHYTHM[(first_hour + edges[:-1].astype(np.int64)) % 24] * np.diff(edges)
    reached = np.concatenate([[0.0], np.cumsum(weight)])
    steps = np.cumsum(rng.standard_exponential(groups + 1))
    hours = np.interp(steps[:-1] * (reached[-1] / steps[-1]), reached, edges)
    return options.start_micros + (hours * MICROS_PER_HOUR).astype(np.int64)


def _rank(rng: np.random.Generator, size: int, first: float, second: float) -> np.ndarray:
    """0, 1 or 2, each at its share; `first` and `second` are cumulative."""
    u = rng.random(size, np.float32)
    return (u > first).astype(np.int8) + (u > second)


def _human_agents(device: np.ndarray, traits: np.ndarray) -> np.ndarray:
    first = np.array(FIRST_HUMAN, np.int16)
    number = np.array([len(HUMAN.get(d, ())) or 1 for d in range(len(DEVICES))], np.uint64)
    return first[device] + ((traits >> np.uint64(8)) % number[device]).astype(np.int16)


def _addresses(household: np.ndarray, seed: int) -> np.ndarray:
    """One public address a household (numbers, i4) -> i8; a fifth of them IPv6."""
    bits = mix_all(household, np.uint64(seed + 1))
    v4 = _IPV4_FIRST[bits & np.uint64(15)] << np.uint64(24) | (bits >> np.uint64(8)) & np.uint64(0xFFFFFF)
    v6 = bits >> np.uint64(2) | np.uint64(1 << 32)
    return np.where(bits >> np.uint64(54) & np.uint64(1023) < 205, v6, v4).astype(np.int64)


def _partly_booked(rng: np.random.Generator, size: int) -> np.ndarray:
    u = rng.random(size, np.float32)
    booking = np.zeros(size, np.int32)
    reached = 0.0
    for variant, share in _PARTLY_BOOKED.items():
        booking[(u >= reached) & (u < reached + share)] = variant
        reached += share
    return booking


def _site(source: int | np.ndarray, publisher: int | np.ndarray) -> np.ndarray:
    return (np.asarray(source, np.int16) * np.int16(len(w.PUBLISHERS)) + publisher).astype(np.int16)


def _views(columns: Columns, span: list, form: np.ndarray, publisher: np.ndarray, members: list, rng) -> None:
    """Viewability: percent and ms about the thresholds (50 %, 1,000 and 2,000 ms), some exactly on and just below."""
    first_percent = np.zeros(form.size, np.int32)
    first_ms = np.zeros(form.size, np.int32)
    for kind in (Kind.VIEW, Kind.VIEW_AGAIN):
        rows, group = span[kind], members[kind]
        size = group.size
        of_form = form[group]
        percent = np.minimum(rng.integers(0, 160, size, np.int32), 100)
        ms = (rng.standard_exponential(size, np.float32) * 3500).astype(np.int32)
        near = rng.integers(0, 40, size, np.int8)
        for value, chance in ((50, 0), (49, 1)):
            percent[near == chance] = value
        for value, chance in ((1000, 2), (999, 3), (2000, 4), (1999, 5)):
            ms[near == chance] = value
        if kind == Kind.VIEW:
            first_percent[group], first_ms[group] = percent, ms
        else:
            # Half of the second events go on from the first. The rest stand alone: percentage and time of two
            # different events may pass the thresholds together, which makes no viewable impression.
            goes_on = rng.random(size, np.float32) < 0.5
            percent = np.where(goes_on, np.maximum(percent, first_percent[group]), percent)
            ms = np.where(goes_on, ms + first_ms[group], ms)
        audible = np.where(rng.random(size, np.float32) < 0.4, 0, rng.integers(0, 6000, size, np.int32))
        audible[near == 6], audible[near == 7] = 2000, 1999
        # Sound is measured on video and audio, and on the odd display ad, where it counts for nothing; as does what
        # is seen of an audio ad's companion.
        sound = (of_form != w.DISPLAY) | (near == 8)
        seen = (of_form != w.AUDIO) | (near == 9)
        columns.audible_ms[rows] = np.where(sound, audible, NULL)
        columns.visible_percent[rows] = np.where(seen, percent, NULL)
        columns.visible_ms[rows] = np.where(seen, ms, NULL)
        columns.event_time[rows] += ms.astype(np.int64) * 1000 + rng.integers(0, 4 * MICROS_PER_SECOND, size)
        if kind == Kind.VIEW_AGAIN:
            columns.event_time[rows] += rng.integers(5 * MICROS_PER_SECOND, 50 * _MINUTE, size)
        columns.site[rows] = _site(w.VERIFICATION, publisher[group])
        # Some of the vendor's events say no more than the campaign and the impression.
        bare = rng.random(size, np.float32) < 0.35
        booking = columns.booking[rows]
        columns.booking[rows] = np.where(bare, booking - booking % len(Booking) + Booking.CAMPAIGN_ONLY, booking)
        for column in (columns.context, columns.spec, columns.consent):
            column[rows][bare] = 0


def _quartiles(columns: Columns, span: list, duration: np.ndarray, publisher: np.ndarray, members: list, rng) -> None:
    begin = rng.integers(-200_000, 3 * MICROS_PER_SECOND, duration.size)  # micros; a player's clock may be behind
    quarters = {
        Kind.START: 0, Kind.START_AGAIN: 0,
        Kind.FIRST_QUARTILE: 1, Kind.MIDPOINT: 2, Kind.THIRD_QUARTILE: 3, Kind.COMPLETE: 4,
    }
    for kind, quarter in quarters.items():
        rows, group = span[kind], members[kind]
        played = duration[group] * quarter // 4
        columns.played_ms[rows] = played
        columns.event_time[rows] += begin[group] + played * 1000
        columns.site[rows] = _site(w.PLAYER, publisher[group])
    columns.event_time[span[Kind.START_AGAIN]] += rng.integers(0, _MINUTE, members[Kind.START_AGAIN].size)


def _double_clicks(columns: Columns, span: list, members: list, rng) -> None:
    """Some second clicks come at the first one's instant."""
    first = span[Kind.CLICK].start + np.searchsorted(members[Kind.CLICK], members[Kind.CLICK_AGAIN])
    double = rng.random(first.size) < 0.2
    columns.event_time[span[Kind.CLICK_AGAIN]][double] = columns.event_time[first[double]]


def _conversions(columns: Columns, span: list, flags: np.ndarray, members: list, rng) -> None:
    """Conversions 20 min to 6 h after the group's impression."""
    rows, group = span[Kind.CONVERSION], members[Kind.CONVERSION]
    size = group.size
    delay = np.minimum(rng.exponential(90, size) + 20, 360)
    columns.event_time[rows] += (delay * _MINUTE).astype(np.int64)
    ordered = flags[Kind.ORDER_AGAIN, group] | (rng.random(size, np.float32) < 0.55)
    columns.conversion_type[rows] = np.where(ordered, 1, rng.integers(1, len(w.CONVERSION_TYPES), size, np.uint8))
    columns.order[rows] = np.where(ordered, group, NO_ID)
    value = np.exp(rng.normal(3.7, 0.8, size)) * 100
    columns.value[rows] = np.where(ordered | (rng.random(size) < 0.3), value.astype(np.int64) * 10_000, NULL)
    columns.site[rows] = _site(w.PIXEL, 0)
    columns.booking[rows] -= columns.booking[rows] % len(Booking) - Booking.ADVERTISER_ONLY
    for column in (columns.context, columns.spec, columns.experiment):
        column[rows] = 0


def _second_reports(columns: Columns, span: list, members: list, rng) -> None:
    """An order's second report, 10 min before to 2 h after the first."""
    again = span[Kind.ORDER_AGAIN]
    of = span[Kind.CONVERSION].start + np.searchsorted(members[Kind.CONVERSION], members[Kind.ORDER_AGAIN])
    for column in columns:
        if column is not columns.key:
            column[again] = column[of]
    shift = rng.integers(-10 * _MINUTE, 120 * _MINUTE, of.size)
    shift[rng.random(of.size) < 0.25] = 0  # at the same instant the event_id decides
    columns.event_time[again] += shift
    columns.site[again] = _site(w.SHOP, 0)
    columns.session[again] = 0


def _prices(columns: Columns, span: list, world: w.World, package: np.ndarray, members: list, rng) -> None:
    """The booked price, within a tenth of it, on the event that the pricing model bills."""
    for kind, pricing in (
        (Kind.IMPRESSION, w.CPM), (Kind.CLICK, w.CPC), (Kind.CLICK_AGAIN, w.CPC), (Kind.COMPLETE, w.CPV),
    ):
        of = package[members[kind]]
        price = world.price[of] * rng.integers(900, 1101, of.size, np.int64) // 1000
        columns.price[span[kind]] = np.where(world.pricing[of] == pricing, price, NULL)


def _robots_among_people(
    columns: Columns, span: list, robot: np.ndarray, human: np.ndarray, members: list, robot_rate: float, rng
) -> None:
    """Robots that follow people's impressions, mostly clicking, and robots' follow-ups under a person's agent."""
    shares = {kind: 0.05 for kind in FOLLOW_UPS} | {Kind.CLICK: 1.0, Kind.CLICK_AGAIN: 1.0, Kind.CONVERSION: 0.4}
    for kind, share in shares.items():
        rows, group = span[kind], members[kind]
        size = group.size
        u = rng.random(size, np.float32)
        agent = columns.agent[rows]
        follows_robot = robot[group]
        robots = FIRST_ROBOT + rng.integers(0, len(ROBOTS), size, np.int16)
        hides = (u < 0.05) & (kind != Kind.CONVERSION)
        columns.agent[rows] = np.where(
            follows_robot, np.where(hides, human[group], agent), np.where(u < share * robot_rate, robots, agent)
        )
    # Half of an order's second reports pass the browser's agent on; for the others it matters which report stands.
    of = span[Kind.CONVERSION].start + np.searchsorted(members[Kind.CONVERSION], members[Kind.ORDER_AGAIN])
    columns.agent[span[Kind.ORDER_AGAIN]] = np.where(rng.random(of.size) < 0.5, columns.agent[of], 0)
