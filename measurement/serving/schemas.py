"""What the OpenAPI document says of parameters and answers, made from the tables' own columns."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model, model_validator

from measurement.columnar.jsonl import micros
from measurement.model.events import MAX_TIME_MICROS
from measurement.exports.request import EXPORTED, Format
from measurement.model.tables import ATTRIBUTION, DELIVERY, FLOAT64, INT64, INVALID_TRAFFIC, NUMERIC, TIMESTAMP, Column, Table
from measurement.model.views.pacing import PACING
from measurement.serving.folds import JOINED
from measurement.serving.sums import COUNTED, MOST_BY, columns_by
from measurement.serving.times import MICROS_PER_DAY

MOST_DAYS, MOST_ROWS = 400, 10_000
_LONGEST = 1024  # characters of a parameter


class Grain(StrEnum):
    hour = "hour"
    day = "day"


def _instant(given: Any) -> int:
    at = micros(given) if isinstance(given, str) else None
    if at is None:
        raise ValueError("is not an RFC 3339 time with an offset, as 2026-03-02T00:00:00Z (in an address + is written %2B)")
    if not 0 <= at <= MAX_TIME_MICROS:
        raise ValueError("is not of the years 1970 to 9999")
    return at


Instant = Annotated[int, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})]


class Paged(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(MOST_ROWS, ge=1, le=MOST_ROWS, description="Rows at most; where there are more, `next` says how to go on.")
    cursor: str | None = Field(None, min_length=1, max_length=8192,
                               description="`next` of the page before, beside the same other parameters.")


class Ranged(BaseModel):
    model_config = ConfigDict(extra="forbid")

    from_: Instant = Field(alias="from", description="Rows whose window_start is at or after this time.")
    to: Instant = Field(description=f"and before this one; at most {MOST_DAYS} days later.")
    campaign_id: str | None = Field(None, min_length=1, max_length=_LONGEST, description="Only this campaign's rows.")

    @model_validator(mode="after")
    def _range(self) -> "Ranged":
        if self.from_ >= self.to:
            raise ValueError("from is not before to")
        if self.to - self.from_ > MOST_DAYS * MICROS_PER_DAY:
            raise ValueError(f"from and to are more than {MOST_DAYS} days apart")
        return self


class Asked(Ranged, Paged):
    grain: Grain = Field(Grain.hour, description="Rows of hours, or of whole UTC days that start in the range.")


class Unasked(BaseModel):
    """No parameter at all."""

    model_config = ConfigDict(extra="forbid")


def _summed_by(table: Table) -> type[Ranged]:
    names = columns_by(table)

    def known(given: str) -> str:
        parts = given.split(",")
        if len(parts) > MOST_BY or len(set(parts)) < len(parts) or not set(parts) <= set(names):
            raise ValueError(f"is not one to four of {', '.join(names)}, with commas, each once")
        return given

    one = f"({'|'.join(names)})"
    by = Annotated[str, AfterValidator(known), WithJsonSchema({"type": "string", "pattern": f"^{one}(,{one}){{0,{MOST_BY - 1}}}$"})]
    return create_model(f"{table.name}_summed_by", __base__=Ranged, by=(by, Field(
        description=f"What is summed by: one to four of {', '.join(names)}, with commas, each once.")))


SUMMED_BY = {t.name: _summed_by(t) for t in (DELIVERY, ATTRIBUTION, INVALID_TRAFFIC)}
Exported = StrEnum("Exported", list(EXPORTED))


class Export(Ranged):
    """``from`` and ``to`` are whole hours, with grain=day whole UTC days."""

    table: Exported = Field(description="Which figures.")
    grain: Grain = Field(Grain.hour, description="A row is an hour's, or a UTC day's.")
    format: Format = Field(Format.csv, description="Of the file with the rows.")

    @model_validator(mode="after")
    def _last_day(self) -> "Export":
        if self.to > MAX_TIME_MICROS - MICROS_PER_DAY:  # the day behind it is asked for too
            raise ValueError("to is not of the years 1970 to 9998")
        return self


_TIME = {"type": "string", "format": "date-time"}
_OF_DAY = {
    "window_start": "With grain=day the start of the UTC day.",
    "status": "With grain=day that of the worst hour: provisional, else restated, else final.",
    "restated_because": "With grain=day all reasons of its hours, with commas.",
    "rule_version": f"With grain=day all of its hours, joined by '{JOINED}' where they differ.",
    "revision": "With grain=day the highest of its hours.", "published_at": "With grain=day the latest of its hours.",
}
_OF_SUMS = {
    "status": "That of the worst of its hours.", "restated_because": "All reasons of its rows, with commas.",
    "rule_version": f"All of its rows', joined by '{JOINED}' where they differ.", "revision": "The highest of its rows.",
    "published_at": "The latest of its rows.",
}
Time = Annotated[str, WithJsonSchema(_TIME)]


def _field(column: Column, more: dict[str, str] = _OF_DAY, may_lack: bool = False) -> tuple[Any, Any]:
    text = " ".join(filter(None, (column.description, more.get(column.name))))
    kind: Any = {INT64: int, FLOAT64: float, TIMESTAMP: Time}.get(column.type, str)
    extra: dict[str, Any] = {"format": "int64"} if column.type == INT64 else {}
    if column.type == NUMERIC:
        text += " Decimal digits in a string, so that none is lost."
        extra["pattern"] = r"^-?[0-9]+\.[0-9]{9}$"
    if column.name == "status":
        extra["enum"] = ["provisional", "final", "restated", *(() if column.required else (None,))]
    absent: dict[str, Any] = {"default_factory": str} if may_lack else {}
    return (kind if column.required else kind | None), Field(description=text, json_schema_extra=extra, **absent)


_AS_OF = Field(description="The newest published_at of the rows; without rows the newest known. null where nothing has closed yet.")
_UNTIL = Field(description="Hours before this time are closed: later events can only restate them. null where none is.")
_NEXT = Field(description="Where more rows follow, the `cursor` of the next page; else null.")


def _answer(name: str, table: Table) -> type[BaseModel]:
    row = create_model(f"{name}Row", __config__=ConfigDict(extra="forbid"), **{c.name: _field(c) for c in table.columns})
    rows = list[row], Field(description=f"{table.description} Latest hour first.")
    return create_model(f"{name}Answer", __config__=ConfigDict(extra="forbid"), rows=rows, as_of=(Time | None, _AS_OF),
                        complete_until=(Time | None, _UNTIL), next=(str | None, _NEXT))


ANSWERS = {DELIVERY.name: _answer("Delivery", DELIVERY), ATTRIBUTION.name: _answer("Attribution", ATTRIBUTION),
           INVALID_TRAFFIC.name: _answer("InvalidTraffic", INVALID_TRAFFIC)}


def _sums(name: str, table: Table) -> type[BaseModel]:
    """A row has of the columns that tell rows apart those that were asked for, and the currency and a status always."""
    fields = {}
    for column in (*table.body[: -len(table.values)], *COUNTED, *table.values, *table.columns[len(table.body):]):
        fields[column.name] = _field(column, _OF_SUMS, column.name in columns_by(table) and column.name not in ("currency", "status"))
    row = create_model(f"{name}SumsRow", __config__=ConfigDict(extra="forbid"), **fields)
    rows = list[row], Field(description="Sums, in the order of what was asked by, unknown first.")
    return create_model(f"{name}SumsAnswer", __config__=ConfigDict(extra="forbid"), rows=rows, as_of=(Time | None, _AS_OF),
                        complete_until=(Time | None, _UNTIL))


SUMS_ANSWERS = {DELIVERY.name: _sums("Delivery", DELIVERY), ATTRIBUTION.name: _sums("Attribution", ATTRIBUTION),
                INVALID_TRAFFIC.name: _sums("InvalidTraffic", INVALID_TRAFFIC)}


def _pacing() -> type[BaseModel]:
    row = create_model("PacingRow", __config__=ConfigDict(extra="forbid"), **{c.name: _field(c, {}) for c in PACING.columns})
    rows = list[row], Field(description=f"{PACING.description} By advertiser, start of the flight and booking.")
    return create_model("PacingAnswer", __config__=ConfigDict(extra="forbid"), rows=rows, as_of=(Time | None, _AS_OF),
                        complete_until=(Time | None, _UNTIL))


PACING_ANSWER = _pacing()


class AdvertiserRow(BaseModel):
    model_config = ConfigDict(extra="forbid")

    advertiser_id: str
    newest_hour: Time = Field(description="The start of the newest hour with delivery.")
    published_at: Time = Field(description="When rows of the advertiser were last published, as far as was looked.")


class AdvertisersAnswer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    advertisers: list[AdvertiserRow] = Field(description="By id, some seconds old at most.")
    as_of: Time | None = _AS_OF
    complete_until: Time | None = _UNTIL
    next: str | None = _NEXT


class Wrong(BaseModel):
    parameter: str
    detail: str


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str = Field(description="urn:ad-measurement:problem:KIND")
    title: str
    status: int
    detail: str
    errors: list[Wrong] | None = Field(None, description="What is wrong with each parameter.")
