"""`campaign_summary`: what each campaign delivered and earned, whole.

Delivery and attribution are stacked and then summed, not joined: a join would repeat the one for each row of the other. Both have
a currency, of the price and of the conversion's value; a row has the figures of one.
"""

from measurement.model.attribution import MODELS
from measurement.model.events import COUNTS
from measurement.model.tables import INT64, NUMERIC, STRING, TIMESTAMP, Column
from measurement.model.views.view import (
    COUNT_COLUMNS, HOURS, NO_TESTS, OF_DELIVERY, View, hours_of_rows, share, total, totals,
)

_EARNED = [f"{figure}_{model}" for model in MODELS for figure in ("conversions", "value_micros")]
_CREDITED = [f"CASE WHEN model = '{model}' THEN {figure} END AS {figure}_{model}"
             for model in MODELS for figure in ("conversions", "value_micros")]


def _earned(model: str) -> tuple[Column, ...]:
    none = f"NULL where {model} credited nothing."
    return (Column(f"conversions_{model}", NUMERIC, False, f"Conversions that {model} credits to it; {none}"),
            Column(f"value_micros_{model}", INT64, False, f"Their value, millionths of currency; {none}"))


CAMPAIGN_SUMMARY = View(
    "campaign_summary", "What each campaign delivered, and what each attribution model credits to it. Each figure of delivery and of "
    "attribution is in one row, so the rows' sums are the whole.",
    ("delivery", "attribution"),
    (OF_DELIVERY["advertiser_id"],
     Column("campaign_id", STRING, False, "The campaign; NULL: conversions that no touch earned."),
     Column("currency", STRING, False, "ISO 4217 code of the row's money, of spend and of conversions' value; NULL: of conversions without "
                                       "value, and of impressions without a price's currency."),
     Column("first_hour", TIMESTAMP, False, "The first hour with an impression; NULL: none in this currency."),
     Column("last_hour", TIMESTAMP, False, "The last hour with an impression; NULL: none in this currency."),
     *COUNT_COLUMNS,
     Column("invalid_impressions", INT64, True, "Impressions of invalid traffic: gross less net."),
     Column("invalid_share", STRING, False, "invalid_impressions / gross_impressions, a share of 1 as a text; NULL: no impressions."),
     *(c for model in MODELS for c in _earned(model)), *HOURS),
    f"""
SELECT advertiser_id, campaign_id, currency,
  min(CASE WHEN gross_impressions > 0 THEN window_start END) AS first_hour,
  max(CASE WHEN gross_impressions > 0 THEN window_start END) AS last_hour, {totals(COUNTS)},
  {total('gross_impressions - impressions', 'invalid_impressions')},
  {share('CAST(sum(gross_impressions - impressions) AS INT64)', 'CAST(sum(gross_impressions) AS INT64)')} AS invalid_share,
  {', '.join(total(c) if c.startswith('value') else f'sum({c}) AS {c}' for c in _EARNED)}, {hours_of_rows()}
FROM (
  SELECT advertiser_id, campaign_id, currency, window_start, status, {', '.join(COUNTS)}, {', '.join(f'NULL AS {c}' for c in _EARNED)}
  FROM `{{dataset}}.delivery_latest` WHERE {NO_TESTS}
  UNION ALL
  SELECT advertiser_id, campaign_id, currency, window_start, status, {', '.join(f'0 AS {c}' for c in COUNTS)}, {', '.join(_CREDITED)}
  FROM `{{dataset}}.attribution_latest` WHERE {NO_TESTS}
) AS figures
GROUP BY advertiser_id, campaign_id, currency""")
