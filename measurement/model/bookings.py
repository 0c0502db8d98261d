"""The tables that people fill and the job neither writes, stages nor compares: what was booked, and whose days are whose."""

from measurement.model.tables import BOOL, INT64, STRING, TIMESTAMP, Column, Table

# What can be booked: counts of delivery that are sold.
METRICS = ("impressions", "viewable_impressions", "clicks", "completes", "spend_micros")

BOOKINGS = Table(
    "bookings", "What was booked: so much of a metric for a campaign or one of its line items within a flight. A booking that is loaded "
    "again with other content is a new revision; one that was called off stands as cancelled. Its revision is when it was loaded, µs.",
    (Column("booking_id", STRING, True, "The booking, as the order system names it."),
     Column("advertiser_id", STRING, True, "Who pays."),
     Column("campaign_id", STRING, True, "The campaign that was booked."),
     Column("line_item_id", STRING, False, "The line item that was booked; NULL: the whole campaign."),
     Column("metric", STRING, True, f"What was booked, a figure of delivery: {', '.join(METRICS)}."),
     Column("goal", INT64, True, "So much of the metric; of spend_micros millionths of currency."),
     Column("starts_at", TIMESTAMP, True, "The flight's start."),
     Column("ends_at", TIMESTAMP, True, "The flight's end, which is no part of it."),
     Column("currency", STRING, False, "ISO 4217 code of the goal of spend_micros; NULL of other metrics."),
     Column("cancelled", BOOL, True, "Whether it was called off.")), 1, stated=False)

TIME_ZONES = Table(
    "reporting_time_zones", "Whose days are which: the time zone of an advertiser's daily figures. Who has none has the one without an "
    "advertiser, else UTC. Its revision is when it was set, µs.",
    (Column("advertiser_id", STRING, False, "The advertiser; NULL: all that have no row of their own."),
     Column("time_zone", STRING, True, "The zone's name in IANA's database, such as Europe/Berlin.")), 1, stated=False)

LOADED = {t.name: t for t in (BOOKINGS, TIME_ZONES)}
