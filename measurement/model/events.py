"""The vocabulary of an ad event: its fields, types, dimensions and outcomes (contract sections 1 and 2)."""

import json
from importlib import resources

SCHEMA: dict = json.loads(resources.files("schemas").joinpath("ad_event.avsc").read_text())
FIELDS: tuple[str, ...] = tuple(f["name"] for f in SCHEMA["fields"])
FIELD_INDEX: dict[str, int] = {name: i for i, name in enumerate(FIELDS)}

EVENT_TYPES = (
    "impression", "click", "conversion", "viewability",
    "start", "firstQuartile", "midpoint", "thirdQuartile", "complete",
)
IMPRESSION, CLICK, CONVERSION, VIEWABILITY, START, FIRST_QUARTILE, MIDPOINT, THIRD_QUARTILE, COMPLETE = range(9)

FORMATS = ("display", "video", "audio")

# The dimensions of a delivery row, in the order of the table's columns; window_start stands before them.
DIMENSIONS = (
    "advertiser_id", "campaign_id", "line_item_id", "creative_id", "placement_id",
    "format", "country", "device_type", "currency",
)

# The counts of a delivery row, in the order of contract section 2.
COUNTS = (
    "gross_impressions", "impressions", "measurable_impressions", "viewable_impressions",
    "audible_impressions", "clicks", "starts", "first_quartiles", "midpoints",
    "third_quartiles", "completes", "spend_micros",
)

# Outcomes in the contract's order: of those that hold, the first is the event's one outcome.
OUTCOMES = (
    "undecodable", "missing_field", "unknown_type", "bad_value", "consent_denied", "future",
    "too_late", "id_conflict", "duplicate", "orphan", "invalid_traffic", "counted",
)
REJECTED = frozenset(OUTCOMES[:8]) | {"orphan"}

# Reasons of invalid traffic, in the order in which they are judged; 0 means valid.
INVALID_REASONS = ("", "robot", "datacentre", "listed", "rate")

# Fields that may not be negative (contract section 2, bad_value).
NOT_NEGATIVE = ("price_micros", "value_micros", "visible_ms", "audible_ms", "played_ms", "ad_duration_ms")

MICROS_PER_SECOND = 1_000_000
MICROS_PER_HOUR = 3600 * MICROS_PER_SECOND
# What a timestamp column can hold everywhere (years 0001 to 9999); a time outside is a bad value.
MIN_TIME_MICROS = -62_135_596_800 * MICROS_PER_SECOND
MAX_TIME_MICROS = 253_402_300_800 * MICROS_PER_SECOND - 1
FUTURE_TOLERANCE_MICROS = 600 * MICROS_PER_SECOND

# A test event's rows stand under an advertiser that no customer has: this and its own.
TEST_ADVERTISER = "test:"
