"""The analysts' views, over the public tables: BigQuery's SQL, turned into DuckDB's by measurement.model.sql.duckdb."""

from measurement.model.views.campaigns import CAMPAIGN_SUMMARY
from measurement.model.views.daily import DELIVERY_DAILY
from measurement.model.views.pacing import PACING
from measurement.model.views.rates import RATES_VIEW
from measurement.model.views.restatements import RESTATEMENTS
from measurement.model.views.view import View

# In an order in which they can be made: one that reads another comes after it.
VIEWS: dict[str, View] = {v.name: v for v in (DELIVERY_DAILY, CAMPAIGN_SUMMARY, PACING, RATES_VIEW, RESTATEMENTS)}
