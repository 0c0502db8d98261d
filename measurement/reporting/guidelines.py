"""Which guideline each metric follows, what of a guideline's invalid traffic is looked for, and where the count differs.

The rules themselves cite their guidelines where they stand (measurement/rules); here is what no rule decides: what is taken
as the sender says it, and what is not done at all.
"""

from measurement.model.events import COUNTS, INVALID_REASONS

_RENDERED = ("IAB and MRC, Desktop Display Impression Measurement Guidelines (2017); IAB Tech Lab and MRC, Digital Video "
             "Impression Measurement Guidelines (2018): count on begin to render")
FILTERED = "MRC Invalid Traffic Detection and Filtration Standards Addendum (2020), section 1"
_VIEWED = "MRC Viewable Ad Impression Measurement Guidelines (Desktop 2014, Mobile 2016), \"Viewable Impression\""
_PLAYED = "IAB Tech Lab, Video Ad Serving Template (VAST), tracking event {}"

# By count of ``delivery``.
METRICS = {
    "gross_impressions": _RENDERED,
    "impressions": f"{_RENDERED}; net of general invalid traffic: {FILTERED}",
    "measurable_impressions": f"{_VIEWED}: of how many it could be measured whether they were in view",
    "viewable_impressions": _VIEWED,
    "audible_impressions": "MRC Digital Audience-Based Measurement Standards (2017), audibility",
    "clicks": "IAB Click Measurement Guidelines 1.0 (2009), \"Click-Referral Cycle\": the measured click",
    "starts": _PLAYED.format("start"),
    "first_quartiles": _PLAYED.format("firstQuartile"),
    "midpoints": _PLAYED.format("midpoint"),
    "third_quartiles": _PLAYED.format("thirdQuartile"),
    "completes": _PLAYED.format("complete"),
    "spend_micros": "None: the price that the events carry",
}
assert tuple(METRICS) == COUNTS
OUTCOMES = "MRC Outcomes and Data Quality Standards (2022): attribution, lookback windows"

# By reason of invalid traffic, what the addendum calls it.
REASONS = {
    "robot": "bots, spiders and other crawlers", "datacentre": "known data-centre traffic",
    "listed": "other known sources, such as invalid proxies", "rate": "activity-based filtration",
}
assert tuple(REASONS) == INVALID_REASONS[1:]

# Routine means of filtration that the addendum names and that are not used here.
NOT_FILTERED = (
    "Non-browser user agents and unknown browsers are invalid only where the policy gives the IAB's list of valid browsers "
    "(`screening.iab.include`).",
    "Prefetched and pre-rendered ads: a collector must not send an impression before the ad begins to render.",
    "Hidden, stacked and tiny placements, and clients that cannot render: no event says so, and nothing is inferred.",
    "Internal and test traffic: networks of one's own can be given as `screening.listed`; probes set the field `test`.",
    "Nothing is filtered before an event is counted (no front-end filtration): what is left out of net is in gross.",
)

LIMITS = (
    "The measurement is of events that a collector has sent. There is no tag and no SDK here: how the client measures pixels and "
    "time in view, how often it samples, and that an impression is sent only when the ad begins to render, is the collector's to "
    "comply with and to disclose.",
    "`visible_percent` and `visible_ms` are taken as one exposure's: an event whose figures come from different exposures is not "
    "told from a right one.",
    "An impression without a viewability event is not measurable; it is in no rate of view. Of measurable impressions those that "
    "are not viewable are non-viewable; the share not measured is impressions less measurable_impressions.",
    "Each click is counted, also several on one impression; none is held against a landing (resolved clicks are not measured).",
    "Quartiles are taken as the player sends them; `played_ms` is not held against them.",
    "Impressions are weighted by nothing: duration weighting (MRC Cross-Media Audience Measurement Standards, 2019) is in no "
    "count.",
    "Audio impressions have no viewability, display impressions no audibility, and an impression without a format has neither.",
    "No audience, reach or frequency is reported.",
    "Sophisticated invalid traffic (SIVT) is neither looked for nor claimed; figures are net of general invalid traffic (GIVT) "
    "alone.",
    "A user agent, an address or a user that an event does not state is not judged.",
    "A rate is by the hour of the event's own time; whoever stays below the threshold in each hour is not found by it.",
    "A consent string is read by its own bits: the list of vendors, the consent platform's registration and the age of a "
    "consent are not looked up. Legitimate interest is no consent.",
    "No accreditation by the MRC or anybody else is claimed.",
)
