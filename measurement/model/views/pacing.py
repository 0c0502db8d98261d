"""`pacing`: what was delivered of each booking against what should have been by now.

Now is the time before which every hour is closed, not the clock's: an hour that is still being counted would always look behind.
An hour counts in the flight in which it starts.
"""

from measurement.model.bookings import BOOKINGS, METRICS
from measurement.model.tables import FLOAT64, INT64, STRING, TIMESTAMP, Column
from measurement.model.views.view import CLOSED, NO_TESTS, View, names, total, worst

_BOOKED = tuple(c for c in BOOKINGS.body if c.name != "cancelled")
_METRIC = f"CASE metric {' '.join(f'WHEN {m!r} THEN {m}' for m in METRICS)} END"
_DAY = 86_400_000_000  # µs

PACING = View(
    "pacing", "Each booking that was not cancelled against what was delivered of it in its flight. An even flight is expected. All but "
    "delivered_provisional is as of complete_until.",
    ("bookings", "delivery"),
    (*_BOOKED,
     Column("flight", STRING, True, "not_begun, running or ended, by complete_until."),
     Column("complete_until", TIMESTAMP, False, "The time before which every hour is closed; NULL: none is."),
     Column("delivered", INT64, True, "So much of the metric in the flight's hours before complete_until."),
     Column("delivered_provisional", INT64, True, "So much of it in the flight's hours since, which are still being counted."),
     Column("expected", INT64, True, "The goal's part that is due at complete_until if the flight is even."),
     Column("pace", FLOAT64, False, "delivered / expected, unrounded: 1 is on time; NULL before the flight begins. Of several bookings sum "
                                    "delivered and expected, of one metric and currency, and divide."),
     Column("remaining", INT64, True, "What is missing to the goal; 0 where it is reached."),
     Column("over_delivery", INT64, True, "What is above the goal; 0 where it is not reached."),
     Column("needed_per_day", FLOAT64, False, "What remains by the flight's 24 hours that are left; NULL of a flight that ended."),
     Column("hours_restated", INT64, True, "Hourly rows of the flight that changed after their hour had closed."),
     Column("status", STRING, False, "The worst of its hourly rows before complete_until: provisional, restated or final; NULL where "
                                     "there are none.")),
    f"""
SELECT {names(_BOOKED)}, CASE WHEN gone = 0 THEN 'not_begun' WHEN gone = length THEN 'ended' ELSE 'running' END AS flight,
  until AS complete_until, delivered, delivered_provisional, CAST(round(goal * (gone / length)) AS INT64) AS expected,
  safe_divide(delivered, goal * (gone / length)) AS pace,
  greatest(goal - delivered, 0) AS remaining, greatest(delivered - goal, 0) AS over_delivery,
  safe_divide(greatest(goal - delivered, 0) * {_DAY}.0, length - gone) AS needed_per_day,
  hours_restated, CASE WHEN hours > 0 THEN {worst('hours_provisional', 'hours_restated')} END AS status
FROM (
  SELECT booked.*, timestamp_diff(ends_at, starts_at, MICROSECOND) AS length,
    CASE WHEN until IS NULL OR until <= starts_at THEN 0
      ELSE timestamp_diff(least(until, ends_at), starts_at, MICROSECOND) END AS gone
  FROM (
    SELECT {', '.join(f'b.{c.name}' for c in _BOOKED)}, closed.until,
      {total('CASE WHEN window_start < until THEN figure ELSE 0 END', 'delivered')},
      {total('CASE WHEN window_start < until THEN 0 ELSE coalesce(figure, 0) END', 'delivered_provisional')},
      {total('CASE WHEN window_start < until THEN 1 ELSE 0 END', 'hours')},
      {total("CASE WHEN window_start < until AND status = 'provisional' THEN 1 ELSE 0 END", 'hours_provisional')},
      {total("CASE WHEN status = 'restated' THEN 1 ELSE 0 END", 'hours_restated')}
    FROM (SELECT * FROM `{{dataset}}.bookings_latest` WHERE NOT cancelled AND {NO_TESTS}) AS b
    CROSS JOIN {CLOSED} AS closed
    LEFT JOIN (
      SELECT d.window_start, d.status, {_METRIC} AS figure, booking_id
      FROM `{{dataset}}.bookings_latest` AS f
      JOIN `{{dataset}}.delivery_latest` AS d ON d.advertiser_id = f.advertiser_id AND d.campaign_id = f.campaign_id
        AND (f.line_item_id IS NULL OR d.line_item_id = f.line_item_id)
        AND (f.currency IS NULL OR d.currency = f.currency)
        AND d.window_start >= f.starts_at AND d.window_start < f.ends_at
    ) AS h ON h.booking_id = b.booking_id
    GROUP BY {', '.join(f'b.{c.name}' for c in _BOOKED)}, closed.until
  ) AS booked
) AS flights""")
