"""`delivery_daily`: delivery by the days of each advertiser's time zone.

An hour counts in the day in which it starts, so every hour is in one day and the days' sums are the hours'. A day on which the
clocks change has 23 or 25 hours. Where a zone's offset is no whole hour, an hour that reaches over midnight is the earlier day's.
A day is over when the time before which all is closed has come to a later one; that needs no length of a day.
"""

from measurement.model.events import COUNTS
from measurement.model.tables import DATE, STRING, Column
from measurement.model.views.view import (
    CLOSED, COMPLETE, COUNT_COLUMNS, DIMENSION_COLUMNS, HOURS, NO_TESTS, View, hours_of_rows, names, totals,
)

DELIVERY_DAILY = View(
    "delivery_daily", "Daily delivery by combination of dimensions, in the advertiser's time zone (reporting_time_zones). An hour "
    "counts in the day in which it starts. The sums are those of delivery_latest without probes.",
    ("delivery", "reporting_time_zones"),
    (Column("day", DATE, True, "The day in time_zone; an hour that reaches over midnight, of a zone off by half an hour, is the "
                               "earlier's."),
     Column("time_zone", STRING, True, "The advertiser's, by IANA's name; UTC where none is set."),
     *DIMENSION_COLUMNS, *COUNT_COLUMNS, *HOURS, COMPLETE),
    f"""
SELECT day, time_zone, {names(DIMENSION_COLUMNS)}, {totals(COUNTS)}, {hours_of_rows()},
  countif(status = 'provisional') = 0 AND coalesce(max(open_day) > day, FALSE) AS complete
FROM (
  SELECT delivered.*, DATE(window_start, time_zone) AS day, DATE(closed.until, time_zone) AS open_day
  FROM (
    SELECT d.*, coalesce(own.time_zone, others.time_zone, 'UTC') AS time_zone
    FROM (SELECT * FROM `{{dataset}}.delivery_latest` WHERE {NO_TESTS}) AS d
    LEFT JOIN `{{dataset}}.reporting_time_zones_latest` AS own ON own.advertiser_id = d.advertiser_id
    CROSS JOIN (SELECT max(time_zone) AS time_zone FROM `{{dataset}}.reporting_time_zones_latest` WHERE advertiser_id IS NULL) AS others
  ) AS delivered CROSS JOIN {CLOSED} AS closed
) AS hours
GROUP BY day, time_zone, {names(DIMENSION_COLUMNS)}""")
