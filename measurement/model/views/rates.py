"""`rates`: viewability, completion and the like, at each grain a ratio of sums.

A mean of rates is not the rate of the whole: a campaign of a million impressions would weigh as much as one of ten. So the view has
every rate at the grains that people ask for, and a rate is a text, which AVG and SUM refuse; at any other grain one sums the counts
beside it and divides.
"""

from measurement.model.tables import DATE, INT64, STRING, Column
from measurement.model.views.view import COMPLETE, HOURS, OF_DELIVERY, View, share, totals, worst

# Grain: the keys that its rows have.
GRAINS = {
    "advertiser": ("advertiser_id",), "advertiser_day": ("day", "advertiser_id"),
    "campaign": ("advertiser_id", "campaign_id"), "campaign_day": ("day", "advertiser_id", "campaign_id"),
    "campaign_format": ("advertiser_id", "campaign_id", "format"), "line_item": ("advertiser_id", "campaign_id", "line_item_id"),
}
_COUNTS = ("gross_impressions", "impressions", "measurable_impressions", "viewable_impressions", "sound_measurable_impressions",
           "audible_impressions", "clicks", "starts", "completes")
# Rate: what of what.
RATES = {
    "invalid_share": ("gross_impressions - impressions", "gross_impressions"),
    "measurability": ("measurable_impressions", "impressions"),
    "viewability": ("viewable_impressions", "measurable_impressions"),
    "audibility": ("audible_impressions", "sound_measurable_impressions"),
    "ctr": ("clicks", "impressions"),
    "completion": ("completes", "starts"),
}
_MORE = {"viewability": " Audio is never viewable; grain campaign_format sets it apart.",
         "ctr": " An impression may have several clicks."}
_SOUND = Column("sound_measurable_impressions", INT64, True, "Measurable impressions of audio and video: those that can be audible.")
_KEYS = {
    "day": Column("day", DATE, False, "The day in the advertiser's time zone; NULL: all days."),
    "advertiser_id": OF_DELIVERY["advertiser_id"],
    **{key: Column(key, STRING, False, f"{OF_DELIVERY[key].description.rstrip('.')}; NULL where the grain lacks it or it is unknown.")
       for key in ("campaign_id", "line_item_id", "format")},
}


def _key(key: str) -> str:
    having = ", ".join(f"'{grain}'" for grain, keys in GRAINS.items() if key in keys)
    return f"CASE WHEN grain IN ({having}) THEN {key} END AS {key}"


RATES_VIEW = View(
    "rates", f"Rates with their numerators and denominators, a row for each value of a grain's keys: {', '.join(GRAINS)}. Pick one grain "
    "(WHERE grain = …): rows of two count the same twice. Rates are texts, so that none is averaged; for another grain divide sums.",
    ("delivery", "reporting_time_zones"),
    (Column("grain", STRING, True, f"What a row is of: {', '.join(GRAINS)}."), *_KEYS.values(),
     *(_SOUND if c == _SOUND.name else OF_DELIVERY[c] for c in _COUNTS),
     *(Column(rate, STRING, False, f"{part if ' ' not in part else f'({part})'} / {whole}: a share of 1 with four decimals, as a text; "
                                   f"NULL where there are no {whole}.{_MORE.get(rate, '')}")
       for rate, (part, whole) in RATES.items()), HOURS[-1], COMPLETE),
    f"""
SELECT grain, {', '.join(_KEYS)}, {', '.join(_COUNTS)},
  {', '.join(f'{share(part, whole)} AS {rate}' for rate, (part, whole) in RATES.items())},
  {worst('hours_provisional', 'hours_restated')} AS status, complete
FROM (
  SELECT grain, {', '.join(_KEYS)}, {totals((*_COUNTS, 'hours_provisional', 'hours_restated'))}, logical_and(complete) AS complete
  FROM (
    SELECT grain, {', '.join(_key(key) if key != 'advertiser_id' else key for key in _KEYS)}, complete, hours_provisional, hours_restated,
      {', '.join(c for c in _COUNTS if c != _SOUND.name)},
      CASE WHEN format IN ('audio', 'video') THEN measurable_impressions ELSE 0 END AS {_SOUND.name}
    FROM `{{dataset}}.delivery_daily` CROSS JOIN ({' UNION ALL '.join(f"SELECT '{grain}' AS grain" for grain in GRAINS)}) AS grains
  ) AS days
  GROUP BY grain, {', '.join(_KEYS)}
) AS sums""")
