"""Rows of the tables made by hand, and what each of the analysts' views must show of them."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from measurement.model.bookings import LOADED
from measurement.model.tables import BOOL, FLOAT64, INT64, TABLES, TIMESTAMP
from measurement.model.views import VIEWS

EVERY = {**TABLES, **LOADED}
PUBLISHED = datetime(2026, 4, 1, 12, tzinfo=UTC)
NO_EARNINGS = {f"{figure}_{model}": None for figure in ("conversions", "value_micros")
               for model in ("last_touch", "first_touch", "linear", "time_decay", "position_based")}


def at(text: str) -> datetime:
    """A time of March 2026, UTC: DDTHH:MM."""
    return datetime.fromisoformat(f"2026-03-{text}+00:00")


def row(table: str, **values) -> dict:
    """A table's row; 0, false or NULL where nothing is said, final unless told otherwise, and published when its revision was."""
    columns = EVERY[table].columns
    blank = {c.name: {INT64: 0, BOOL: False}.get(c.type) for c in columns}
    stated = {"status": "final", "rule_version": "rules"} if EVERY[table].stated else {}
    number = values.get("revision", 1)
    return blank | stated | {"revision": number, "published_at": PUBLISHED + timedelta(minutes=number)} | values


def delivered(time: str, figures: dict, **values) -> dict:
    dims = {"advertiser_id": "a", "campaign_id": "c1", "line_item_id": "l1", "format": "video", "currency": "EUR"}
    return row("delivery", window_start=at(time), **{**dims, **figures, **values})


def _video(n: int) -> dict:
    """n net impressions of video and two of robots, with figures that tell them apart."""
    return {"gross_impressions": n + 2, "impressions": n, "measurable_impressions": n - 1, "viewable_impressions": n - 3,
            "audible_impressions": n - 4, "clicks": 1, "starts": n - 2, "completes": n - 5, "spend_micros": 1000 * n}


_LATE = {"status": "restated", "restated_because": "late", "revision": 2}
_AUDIO = {"gross_impressions": 4, "impressions": 4, "measurable_impressions": 3, "audible_impressions": 2, "starts": 4, "completes": 4}
_KOLKATA = {"advertiser_id": "b", "campaign_id": "c2", "line_item_id": None, "format": "display", "currency": None}
_ONE = {"gross_impressions": 1, "impressions": 1}

ROWS = {
    "delivery": [
        # In Berlin 23:00 of the 28th, then the day on which the clocks go forward, then 00:00 of the 30th.
        delivered("28T22:00", _video(10)),
        delivered("28T23:00", _video(20)), delivered("28T23:00", _video(25), **_LATE), delivered("28T23:00", _video(25), **_LATE),
        delivered("29T21:00", _video(30)),
        delivered("29T22:00", _video(40), status="provisional"),
        # Came up in an hour that was closed; then zeros of what is no longer produced.
        delivered("29T10:00", _AUDIO, line_item_id="l2", format="audio", currency=None, **_LATE),
        delivered("29T11:00", _ONE, line_item_id="l3"),
        delivered("29T11:00", {}, line_item_id="l3", status="restated", restated_because="rebuild", revision=3, rule_version="new rules"),
        # In Kolkata 23:30 of the 28th and 00:30 of the 29th.
        delivered("28T18:00", {"gross_impressions": 3, "impressions": 3, "clicks": 4}, **_KOLKATA),
        delivered("28T19:00", {"gross_impressions": 5, "impressions": 5}, **_KOLKATA),
        delivered("29T12:00", _video(99), advertiser_id="test:a"),
    ],
    "attribution": [
        row("attribution", window_start=at(time), advertiser_id=who, campaign_id=campaign, model=model, currency=currency,
            conversion_type="buy", conversions=Decimal(conversions), value_micros=value, **more)
        for time, who, campaign, model, currency, conversions, value, more in [
            ("29T05:00", "a", "c1", "last_touch", "EUR", "2", 700, {}),
            ("29T05:00", "a", "c1", "linear", "EUR", "1.5", 500, {}),
            ("29T05:00", "a", "c1", "linear", "EUR", "1.333333333", 450, _LATE),
            ("29T06:00", "a", "c1", "last_touch", None, "1", 0, {}),
            ("29T06:00", "a", None, "last_touch", "EUR", "3", 30, {}),
            ("29T06:00", "test:a", "c1", "last_touch", "EUR", "5", 5, _LATE),
        ]],
    "reporting_time_zones": [
        row("reporting_time_zones", advertiser_id="a", time_zone="America/New_York"),
        row("reporting_time_zones", advertiser_id="a", time_zone="Europe/Berlin", revision=2),
        row("reporting_time_zones", advertiser_id=None, time_zone="Asia/Kolkata"),
    ],
    "bookings": [
        row("bookings", booking_id=id_, advertiser_id=who, campaign_id=campaign, metric=metric, goal=goal, starts_at=at(starts),
            ends_at=at(ends), **more)
        for id_, who, campaign, metric, goal, starts, ends, more in [
            ("whole campaign", "a", "c1", "impressions", 1, "01T00:00", "02T00:00", {}),
            ("whole campaign", "a", "c1", "impressions", 200, "28T22:00", "30T22:00", {"revision": 2}),  # 24 of 48 hours are gone
            ("line item", "a", "c1", "viewable_impressions", 40, "28T23:00", "29T21:00", {"line_item_id": "l1"}),  # it ended before 21:00
            ("money", "a", "c1", "spend_micros", 30_000, "29T00:00", "29T22:00", {"currency": "EUR"}),
            ("other money", "a", "c1", "spend_micros", 30_000, "29T00:00", "30T00:00", {"currency": "USD"}),
            ("to come", "a", "c1", "clicks", 8, "30T00:00", "31T00:00", {}),
            ("called off", "a", "c1", "clicks", 8, "28T00:00", "31T00:00", {"cancelled": True}),
            ("a probe's", "test:a", "c1", "clicks", 8, "28T00:00", "31T00:00", {}),
        ]],
}
UNTIL = at("29T22:00")  # 21:00 is the last hour that is closed


def _expected(view: str, *rows: dict) -> list[dict]:
    """Rows of a view; 0 or NULL where nothing is said."""
    columns = VIEWS[view].columns
    blank = {c.name: 0 if c.required and c.type in (INT64, FLOAT64) else None for c in columns}
    assert all(r.keys() <= blank.keys() for r in rows)
    return [blank | r for r in rows]


def _sum(*figures: dict) -> dict:
    return {name: sum(one.get(name, 0) for one in figures) for one in figures for name in one}


def _hours(final: int, provisional: int = 0, restated: int = 0) -> dict:
    status = "provisional" if provisional else "restated" if restated else "final"
    return {"hours": final + provisional + restated, "hours_provisional": provisional, "hours_restated": restated, "status": status}


_A = {"advertiser_id": "a", "campaign_id": "c1"}
_B = {"advertiser_id": "b", "campaign_id": "c2"}
_BERLIN = _A | {"time_zone": "Europe/Berlin", "line_item_id": "l1", "format": "video", "currency": "EUR"}
_INDIA = _B | {"time_zone": "Asia/Kolkata", "format": "display"}

DELIVERY_DAILY = _expected(
    "delivery_daily",
    _BERLIN | {"day": date(2026, 3, 28), **_video(10), **_hours(1), "complete": True},
    _BERLIN | {"day": date(2026, 3, 29), **_sum(_video(25), _video(30)), **_hours(1, restated=1), "complete": True},
    _BERLIN | {"day": date(2026, 3, 30), **_video(40), **_hours(0, provisional=1), "complete": False},
    _BERLIN | {"day": date(2026, 3, 29), "line_item_id": "l2", "format": "audio", "currency": None, **_AUDIO, **_hours(0, restated=1),
               "complete": True},
    _BERLIN | {"day": date(2026, 3, 29), "line_item_id": "l3", **_hours(0, restated=1), "complete": True},
    _INDIA | {"day": date(2026, 3, 28), "gross_impressions": 3, "impressions": 3, "clicks": 4, **_hours(1), "complete": True},
    _INDIA | {"day": date(2026, 3, 29), "gross_impressions": 5, "impressions": 5, **_hours(1), "complete": True},
)

CAMPAIGN_SUMMARY = _expected(
    "campaign_summary",
    _A | {"currency": "EUR", "first_hour": at("28T22:00"), "last_hour": at("29T22:00"), **NO_EARNINGS,
          **_sum(_video(10), _video(25), _video(30), _video(40)), "invalid_impressions": 8, "invalid_share": "0.0708",  # 8 of 113
          "conversions_last_touch": Decimal(2), "value_micros_last_touch": 700,
          "conversions_linear": Decimal("1.333333333"), "value_micros_linear": 450, **_hours(3, provisional=1, restated=3)},
    _A | {"currency": None, "first_hour": at("29T10:00"), "last_hour": at("29T10:00"), **_AUDIO, "invalid_share": "0.0000",
          "conversions_last_touch": Decimal(1), "value_micros_last_touch": 0, **_hours(1, restated=1)},
    {"advertiser_id": "a", "currency": "EUR", "conversions_last_touch": Decimal(3), "value_micros_last_touch": 30, **_hours(1)},
    _B | {"first_hour": at("28T18:00"), "last_hour": at("28T19:00"), "gross_impressions": 8, "impressions": 8, "clicks": 4,
          "invalid_share": "0.0000", **_hours(2)},
)


def _booking(id_: str) -> dict:
    found = [r for r in ROWS["bookings"] if r["booking_id"] == id_][-1]
    return {c.name: found[c.name] for c in LOADED["bookings"].body if c.name != "cancelled"} | {"complete_until": UNTIL}


PACING = _expected(
    "pacing",
    # 10 + 25 + 30 + 4 of 200 when half of the time is gone, and 40 since.
    _booking("whole campaign") | {"flight": "running", "delivered": 69, "delivered_provisional": 40, "expected": 100, "pace": 0.69,
                                  "remaining": 131, "needed_per_day": 131.0, "hours_restated": 3, "status": "restated"},
    _booking("line item") | {"flight": "ended", "delivered": 22, "expected": 40, "pace": 0.55, "remaining": 18, "hours_restated": 1,
                             "status": "restated"},
    _booking("money") | {"flight": "ended", "delivered": 30_000, "expected": 30_000, "pace": 1.0, "hours_restated": 1, "status": "restated"},
    _booking("other money") | {"flight": "running", "expected": 27_500, "pace": 0.0, "remaining": 30_000, "needed_per_day": 360_000.0},
    _booking("to come") | {"flight": "not_begun", "remaining": 8, "needed_per_day": 8.0},
)


def _rated(grain: str, keys: dict, counts: dict, complete: bool, status: str, **rates) -> dict:
    shown = {c.name for c in VIEWS["rates"].columns} & counts.keys()
    return {"grain": grain, **keys, **{c: counts[c] for c in shown}, "complete": complete, "status": status, **rates}


_V28, _V29, _V30 = ({**v, "sound_measurable_impressions": v["measurable_impressions"]}
                    for v in (_video(10), _sum(_video(25), _video(30)), _video(40)))
_SOUND = {**_AUDIO, "sound_measurable_impressions": 3}
_VIDEO, _ALL = _sum(_V28, _V29, _V30), _sum(_V28, _V29, _V30, _SOUND)
_IN, _IN28, _IN29 = ({"gross_impressions": n, "impressions": n, "clicks": clicks} for n, clicks in ((8, 4), (3, 4), (5, 0)))


def _of(invalid, measurability, viewability, audibility, ctr, completion) -> dict:
    return {"invalid_share": invalid, "measurability": measurability, "viewability": viewability, "audibility": audibility, "ctr": ctr,
            "completion": completion}


_D28 = _of("0.1667", "0.9000", "0.7778", "0.6667", "0.1000", "0.6250")  # 7 of 9 viewable, 6 of 9 audible, 5 of 8 completed
_D29 = _of("0.0635", "0.9492", "0.8750", "0.8750", "0.0339", "0.8909")  # 4/63, 56/59, 49/56, 49/56, 2/59, 49/55
_D30 = _of("0.0476", "0.9750", "0.9487", "0.9231", "0.0250", "0.9211")  # 2/42, 39/40, 37/39, 36/39, 1/40, 35/38
_WHOLE = _of("0.0684", "0.9541", "0.8942", "0.8750", "0.0367", "0.8812")  # 8/117, 104/109, 93/104, 91/104, 4/109, 89/101
_VIDEOS = _of("0.0708", "0.9619", "0.9208", "0.8812", "0.0381", "0.8763")  # 8/113, 101/105, 93/101, 89/101, 4/105, 85/97
_AUDIOS = _of("0.0000", "0.7500", "0.0000", "0.6667", "0.0000", "1.0000")
_CLICKED = _of("0.0000", "0.0000", None, None, "0.5000", None)
_OPEN = (False, "provisional")

RATES = _expected(
    "rates",
    *(_rated(f"{grain}_day", {**keys, "day": date(2026, 3, day)}, counts, *state, **rates)
      for grain, keys in (("advertiser", {"advertiser_id": "a"}), ("campaign", _A))
      for day, counts, state, rates in ((28, _V28, (True, "final"), _D28), (29, _sum(_V29, _SOUND), (True, "restated"), _D29),
                                        (30, _V30, _OPEN, _D30))),
    *(_rated(grain, keys, _ALL, *_OPEN, **_WHOLE) for grain, keys in (("advertiser", {"advertiser_id": "a"}), ("campaign", _A))),
    _rated("campaign_format", _A | {"format": "video"}, _VIDEO, *_OPEN, **_VIDEOS),
    _rated("campaign_format", _A | {"format": "audio"}, _SOUND, True, "restated", **_AUDIOS),
    _rated("line_item", _A | {"line_item_id": "l1"}, _VIDEO, *_OPEN, **_VIDEOS),
    _rated("line_item", _A | {"line_item_id": "l2"}, _SOUND, True, "restated", **_AUDIOS),
    _rated("line_item", _A | {"line_item_id": "l3"}, {}, True, "restated"),
    *(_rated(f"{grain}_day", {**keys, "day": date(2026, 3, day)}, counts, True, "final", **rates)
      for grain, keys in (("advertiser", {"advertiser_id": "b"}), ("campaign", _B))
      for day, counts, rates in ((28, _IN28, _CLICKED | {"ctr": "1.3333"}), (29, _IN29, _CLICKED | {"ctr": "0.0000"}))),
    _rated("advertiser", {"advertiser_id": "b"}, _IN, True, "final", **_CLICKED),
    *(_rated(grain, _B | more, _IN, True, "final", **_CLICKED)
      for grain, more in (("campaign", {}), ("campaign_format", {"format": "display"}), ("line_item", {}))),
)


def _changed(table: str, time: str, figure: str, old, new, revision: int = 2, **values) -> dict:
    before = {"old_published_at": PUBLISHED + timedelta(minutes=1), "old_rule_version": "rules"}
    return _A | before | {
        "table_name": table, "window_start": at(time), "figure": figure, "old_value": Decimal(old), "new_value": Decimal(new),
        "difference": Decimal(new) - Decimal(old), "restated_because": "late", "revision": revision, "rule_version": "rules",
        "published_at": PUBLISHED + timedelta(minutes=revision), **values}


_NEW = {"line_item_id": "l2", "format": "audio", "currency": None, "old_published_at": None, "old_rule_version": None}
_GONE = {"line_item_id": "l3", "restated_because": "rebuild", "rule_version": "new rules"}
_VIDEO_KEY = {"line_item_id": "l1", "format": "video", "currency": "EUR"}
_LINEAR = {"conversion_type": "buy", "model": "linear", "currency": "EUR"}

RESTATEMENTS = _expected(
    "restatements",
    *(_changed("delivery", "28T23:00", c, _video(20)[c], _video(25)[c], **_VIDEO_KEY) for c in _video(0) if c != "clicks"),
    *(_changed("delivery", "29T10:00", c, 0, n, **_NEW) for c, n in _AUDIO.items()),
    *(_changed("delivery", "29T11:00", c, 1, 0, 3, **_VIDEO_KEY | _GONE) for c in _ONE),
    _changed("attribution", "29T05:00", "conversions", "1.5", "1.333333333", **_LINEAR),
    _changed("attribution", "29T05:00", "value_micros", 500, 450, **_LINEAR),
)

EXPECTED = {"delivery_daily": DELIVERY_DAILY, "campaign_summary": CAMPAIGN_SUMMARY, "pacing": PACING, "rates": RATES,
            "restatements": RESTATEMENTS}


def plain(view: str, rows: list[dict]) -> list[tuple]:
    """A view's rows in one order and form, whoever read them."""
    types = {c.name: c.type for c in VIEWS[view].columns}
    assert all(r.keys() == types.keys() for r in rows)
    return sorted((tuple(_plain(r[name], kind) for name, kind in types.items()) for r in rows), key=repr)


def _plain(value, kind: str):
    if value is None:
        return None
    if kind == TIMESTAMP:
        return value.astimezone(UTC).isoformat()
    return value.normalize() if isinstance(value, Decimal) else value
