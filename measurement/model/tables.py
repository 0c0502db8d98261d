"""The public tables, their columns and what these mean (contract section 5); DDL is generated from here."""

from dataclasses import dataclass

from measurement.model.events import COUNTS, DIMENSIONS

# BigQuery's type names; measurement/model/sql.py gives DuckDB's. A NUMERIC has 9 decimals.
STRING, TIMESTAMP, INT64, BYTES, NUMERIC = "STRING", "TIMESTAMP", "INT64", "BYTES", "NUMERIC"
BOOL, DATE, FLOAT64 = "BOOL", "DATE", "FLOAT64"  # of what is loaded by people, and of views


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    required: bool
    description: str


@dataclass(frozen=True)
class Table:
    """``body``: the columns that the contract lists, of which the first ``keys`` are the key. A totals table has a ``time``,
    by which its rows close, and sums (``values``). With ``together`` the rows of one value of the first so many columns are written
    together, and of several writes the last stands."""

    name: str
    description: str
    body: tuple[Column, ...]
    keys: int
    stated: bool  # whether rows have status, restated_because and rule_version
    time: str = ""
    together: int = 0

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.body + (_STATED if self.stated else ()) + _ALL

    @property
    def key(self) -> tuple[Column, ...]:
        return self.body[: self.keys]

    @property
    def values(self) -> tuple[Column, ...]:
        """What is summed: the numbers of a totals table."""
        return tuple(c for c in self.body if c.type in (INT64, NUMERIC))

    @property
    def texts(self) -> tuple[Column, ...]:
        """Of a totals table all that tells its rows apart but for their time."""
        return tuple(c for c in self.body if c.type not in (INT64, NUMERIC) and c.name != self.time)

    @property
    def identity(self) -> tuple[Column, ...]:
        """The columns whose highest revision the view ``NAME_latest`` keeps: the key, and of a totals table also what always
        goes with it."""
        return tuple(c for c in self.body if c in self.key or (self.time and c not in self.values))


_STATED = (
    Column("status", STRING, True, "provisional while the hour is open, final at its close, restated after any later change."),
    Column("restated_because", STRING, False, "Why it was restated: late, invalid_traffic, order, rebuild, policy or erasure."),
    Column("rule_version", STRING, True, "The rules, lists and policy that the row was counted by."),
)
_ALL = (
    Column("revision", INT64, True, "Rises with each publication of the row: generation * 2^32 + n. The highest holds."),
    Column("published_at", TIMESTAMP, True, "When this revision was published."),
)

_DIMENSION_DOCS = {
    "advertiser_id": "Who pays. Rows of probes stand under 'test:' and the probe's advertiser.",
    "campaign_id": "The campaign.", "line_item_id": "What was booked: the order line that pays.",
    "creative_id": "The creative shown.", "placement_id": "Where it was shown.",
    "format": "display, video or audio.", "country": "ISO 3166-1 alpha-2.", "device_type": "The device's type.",
    "currency": "ISO 4217 code of spend_micros.",
}
_COUNT_DOCS = {
    "gross_impressions": "Distinct impressions, invalid traffic included.",
    "impressions": "Distinct impressions net of invalid traffic.",
    "measurable_impressions": "Net impressions with at least one viewability event.",
    "viewable_impressions": "Net impressions viewable by the policy's thresholds for their format, the MRC's by default.",
    "audible_impressions": "Net audio and video impressions audible for the policy's time, two seconds by default.",
    "clicks": "Valid clicks on net impressions.", "starts": "Net impressions that started to play.",
    "first_quartiles": "Net impressions played to a quarter.", "midpoints": "Net impressions played to half.",
    "third_quartiles": "Net impressions played to three quarters.", "completes": "Net impressions played to the end.",
    "spend_micros": "Price of every valid event counted under the net impressions, millionths of currency.",
}

DELIVERY = Table(
    "delivery", "Hourly delivery by combination of dimensions. Follow-ups count in the hour and dimensions of their impression.",
    (Column("window_start", TIMESTAMP, True, "The hour's start, UTC, by the impression's event time."),
     *(Column(d, STRING, d == "advertiser_id", _DIMENSION_DOCS[d]) for d in DIMENSIONS),
     *(Column(c, INT64, True, _COUNT_DOCS[c]) for c in COUNTS)), 1 + len(DIMENSIONS), stated=True, time="window_start")

INVALID_TRAFFIC = Table(
    "invalid_traffic", "What was counted in gross and left out of net, by reason. Follow-ups stand in the hour and dimensions of their "
    "impression, conversions in their own. Of a delivery row gross_impressions - impressions is the sum of its impressions' events here.",
    (Column("window_start", TIMESTAMP, True, "The hour's start, UTC: of the impression's event time, of a conversion its own."),
     *(Column(d, STRING, d == "advertiser_id", _DIMENSION_DOCS[d]) for d in DIMENSIONS),
     Column("event_type", STRING, True, "What was invalid: impression, click, conversion, viewability, or a quartile."),
     Column("reason", STRING, True, "robot, datacentre, listed or rate: the first that holds of the event, else its impression's."),
     Column("events", INT64, True, "Events.")), 3 + len(DIMENSIONS), stated=True, time="window_start")

LEDGER = Table(
    "ledger", "What became of every event received: one outcome each.",
    (Column("window_start", TIMESTAMP, False, "The hour of the event's own time, UTC; NULL where no event time could be read."),
     Column("source", STRING, True, "source_id, else the subscription's or file's name."),
     Column("event_type", STRING, False, "As the event stated it; NULL where it could not be read."),
     Column("outcome", STRING, True, "counted, duplicate, invalid_traffic, or the reason of its rejection."),
     Column("events", INT64, True, "Events.")), 4, stated=True, time="window_start")

INTAKE = Table(
    "intake", "What was received, counted at the source's edge before decoding.",
    (Column("received_hour", TIMESTAMP, True, "The hour of receipt: Pub/Sub's publish time, or when a file was first opened."),
     Column("source", STRING, True, "The subscription's or file's name."),
     Column("messages", INT64, True, "Pub/Sub messages, Avro blocks or JSON lines."),
     Column("events", INT64, True, "Events, as containers' headers and line ends count them."),
     Column("bytes", INT64, True, "Bytes of the messages, uncompressed.")), 2, stated=False, time="received_hour")

ARRIVALS = Table(
    "arrivals", "What was decoded or found undecodable, by the event's own hour, before its outcome was known; reconcile holds it against the ledger.",
    (Column("window_start", TIMESTAMP, False, "The hour of the event's own time, UTC; NULL where no event time could be read."),
     Column("source", STRING, True, "source_id, else the subscription's or file's name."),
     Column("event_type", STRING, False, "As the event stated it; NULL where it could not be read."),
     Column("events", INT64, True, "Events.")), 3, stated=False, time="window_start")

REJECTS = Table(
    "rejects", "Every event that was refused, with its reason and its bytes. The bytes hold personal data: grant access to this table apart.",
    (Column("reject_id", STRING, True, "From the source, the message id or file offset, and the index in it."),
     Column("reason", STRING, True, "The first of the contract's reasons that holds."),
     Column("detail", STRING, False, "The field or error behind the reason."),
     Column("event_id", STRING, False, "As far as it could be read."),
     Column("event_time", TIMESTAMP, False, "As far as it could be read."),
     Column("event_type", STRING, False, "As far as it could be read."),
     Column("payload", BYTES, True, "The bytes as received: personal data, to be read by who replays rejects and nobody else."),
     Column("encoding", STRING, True, "avro or json."),
     Column("schema_id", STRING, False, "CRC-64-AVRO fingerprint of the writer's schema."),
     Column("source", STRING, True, "The subscription's or file's name."),
     Column("source_position", STRING, True, "Message id or file offset, and the index in it."),
     Column("received_at", TIMESTAMP, True, "Receipt.")), 1, stated=False)

_TOUCH_DOCS = {
    "campaign_id": "The campaign of the touch's impression; NULL where no touch earned the credit.",
    **{d: f"The touch's {d.removesuffix('_id').replace('_', ' ')}; NULL where no touch earned the credit or it has none."
       for d in ("line_item_id", "creative_id", "placement_id")},
}
_CONVERSION_TYPE = Column("conversion_type", STRING, False, "What the person did, as the conversion says.")
_TOUCH_TYPE = Column("touch_type", STRING, False, "impression or click; NULL where no touch earned the credit.")
_MODEL = Column("model", STRING, True, "last_touch, first_touch, linear, time_decay or position_based.")
_VALUE_CURRENCY = Column("currency", STRING, False, "ISO 4217 code of value_micros, the conversion's.")

CREDITS = Table(
    "conversion_credits", "What each touch earned of each valid conversion, by model. Over a conversion and model credit sums to exactly 1 "
    "and value_micros to the conversion's value; a touch that lost its credit stands with 0.",
    (Column("conversion_id", STRING, True, "The conversion's event_id."), _MODEL,
     Column("touch_id", STRING, False, "The event_id of the impression or click; NULL where no touch was eligible."),
     Column("conversion_time", TIMESTAMP, True, "The conversion's event time."), _CONVERSION_TYPE,
     Column("advertiser_id", STRING, True, _DIMENSION_DOCS["advertiser_id"]), _TOUCH_TYPE,
     Column("touch_time", TIMESTAMP, False, "The touch's event time."),
     *(Column(d, STRING, False, text) for d, text in _TOUCH_DOCS.items()),
     Column("credit", NUMERIC, True, "The share of the conversion, 0 to 1."),
     Column("value_micros", INT64, True, "The share of the conversion's value, millionths of currency."), _VALUE_CURRENCY),
    3, stated=True, time="conversion_time")

ATTRIBUTION = Table(
    "attribution", "Hourly conversions and their value by what earned them: the sums of conversion_credits.",
    (Column("window_start", TIMESTAMP, True, "The start of the conversion's hour, UTC."),
     Column("advertiser_id", STRING, True, _DIMENSION_DOCS["advertiser_id"]),
     *(Column(d, STRING, False, text) for d, text in _TOUCH_DOCS.items()), _CONVERSION_TYPE, _MODEL, _TOUCH_TYPE, _VALUE_CURRENCY,
     Column("conversions", NUMERIC, True, "Credit: conversions, a share of one for each touch of several."),
     Column("value_micros", INT64, True, "Value of the conversions, millionths of currency.")),
    10, stated=True, time="window_start")

AUDITS = Table(
    "audits", "What publishers say they have sent: events by source and minute of their own time, absolute, by run of the publisher.",
    (Column("publisher", STRING, True, "One run of a publisher: a name that no other run has."),
     Column("source", STRING, False, "The events' source_id; NULL where they have none."),
     Column("minute", TIMESTAMP, False, "The minute of the events' own time, UTC; NULL where no event time could be read."),
     Column("events", INT64, True, "Events sent so far."),
     Column("state", STRING, True, "sending, or ended where the publisher has said that it sends no more."),
     Column("sent_at", TIMESTAMP, True, "When the publisher said so.")), 3, stated=False)

LATENCY = Table(
    "latency", "How long events took from their receipt until what counts them could be read, as counts by bucket. Its revision is readable_at in ms.",
    (Column("sink", STRING, True, "Where they could be read: bigquery, bigtable or duckdb."),
     Column("publication", STRING, True, "The publication that counts them, by which a repeated write is known."),
     Column("at_most_ms", INT64, False, "The bucket's upper bound, milliseconds; NULL: longer than the last."),
     Column("events", INT64, True, "Events in the bucket and in none below it."),
     Column("readable_at", TIMESTAMP, True, "When they could be read.")), 3, stated=False, together=2)

SLA = Table(
    "sla", "The service levels as the monitor saw them, a row a level and look; the latest says how they are. Its revision is measured_at in ms.",
    (Column("level", STRING, True, "The service level (docs/reliability.md)."),
     Column("measured_at", TIMESTAMP, True, "When the monitor looked."),
     Column("state", STRING, True, "ok, burning (it holds, and its budget goes too fast), broken, or unknown."),
     Column("good", INT64, True, "What was judged at this look and was as promised: events, minutes or probes."),
     Column("total", INT64, True, "What was judged at this look."),
     Column("part", INT64, True, "Of a level that is judged by its own history: what was found at this look, such as duplicates."),
     Column("whole", INT64, True, "And among how many events."),
     Column("value", NUMERIC, False, "The level's figure, in its own unit: seconds, events, or a share of 1."),
     Column("target", NUMERIC, True, "The share of 1 that must be as promised over 30 days."),
     Column("budget_spent", NUMERIC, True, "Of what may be wrong in 30 days, the share that was; more than 1: the promise is broken."),
     Column("firing", STRING, False, "The alerts that are open, by their long windows, with commas; NULL where none is."),
     Column("since", TIMESTAMP, False, "Since when the first of them is open."),
     Column("text", STRING, True, "What was found, in a line."),
     Column("advertisers", STRING, False, "Advertisers touched, by comma."),
     Column("hours", STRING, False, "Hours touched, by comma.")), 1, stated=False)

# Days that BigQuery keeps a reject unless told otherwise: a month's figures are questioned, and a sender is mended and its rejects
# replayed, within the month. Never less than the dedup horizon and a day: until then a replayed event may still count.
REJECT_DAYS, LEAST_REJECT_DAYS = 30, 8

RESOLVED = "resolved"  # the reason of a reject whose event a later generation no longer rejects

TABLES = {t.name: t for t in (DELIVERY, INVALID_TRAFFIC, CREDITS, ATTRIBUTION, LEDGER, INTAKE, ARRIVALS, REJECTS, AUDITS, LATENCY, SLA)}
OPERATIONAL = AUDITS, LATENCY, SLA  # of the running, not of what is counted: no generation makes their rows anew
TOTALS = {name: t for name, t in TABLES.items() if t.time}  # kept as absolute totals
