"""The rules in the contract's order, and what each said of one copy."""

from dataclasses import dataclass, field
from typing import Any

from measurement.model.events import TEST_ADVERTISER
from measurement.columnar.judge import REASONS
from measurement.explain import screened, words
from measurement.explain.copies import Copy
from measurement.explain.fate import Fate, Rate
from measurement.explain.said import Said
from measurement.explain.words import count, name, span, time
from measurement.model import events as e
from measurement.model.policy import Policy
from measurement.model.screening import REJECT
from measurement.rules import consent

PASSED, STOPPED, NOTED, SKIPPED, NOT_REACHED = "passed", "stopped", "noted", "does not apply", "not reached"
RULES = ("decoded", "fields", "type", "fields of its type", "values", "consent", "future", "too late", "identity", "join", "order",
         "robot", "datacentre", "listed", "rate", "its impression", "counted")
_ALWAYS = ("event_id", "event_type", "event_time", "advertiser_id")
# The outcome that each rule stops with.
_OUTCOMES = {"fields": "missing_field", "type": "unknown_type", "fields of its type": "missing_field", "values": "bad_value",
             "consent": "consent_denied", "future": "future", "too late": "too_late", "join": "orphan", "order": "duplicate",
             **dict.fromkeys(("robot", "datacentre", "listed", "rate", "its impression"), "invalid_traffic")}


@dataclass
class Step:
    """``facts`` are for machines."""

    rule: str
    result: str
    says: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def steps(copy: Copy, said: Said, fate: Fate | None, other: Said | None, policy: Policy) -> list[Step]:
    """``fate`` is of an accepted copy alone; ``other`` is what the impression says that it joined, or of a duplicate or a conflict
    what the first copy says. Behind the rule that decided the outcome none was asked."""
    telling = _Telling(copy, said, fate, other, policy)
    out, stopped = [], False
    for rule in RULES:
        step = Step(rule, NOT_REACHED) if stopped else telling.step(rule)
        stopped = stopped or step.result == STOPPED
        out.append(step)
    return out


def outcome(told: list[Step]) -> str | None:
    """The outcome that the steps lead to, None while it waits."""
    last = next((step for step in told if step.result == STOPPED), None)
    if last is None:
        return None if told[-1].result == NOTED else "counted"
    if last.rule == "identity":
        return "duplicate" if last.facts["same"] else "id_conflict"
    return _OUTCOMES[last.rule]


class _Telling:
    def __init__(self, copy: Copy, said: Said, fate: Fate | None, other: Said | None, policy: Policy):
        self.copy, self.said, self.fate, self.other, self.policy = copy, said, fate, other, policy
        self.reason, self.detail = copy.refused or ("", "")

    @property
    def kind(self) -> str:
        return name(self.said.fields.get("event_type", "what is no text"))

    def step(self, rule: str) -> Step:
        result, says, *facts = getattr(self, "_" + rule.replace(" ", "_"))()
        return Step(rule, result, says, facts[0] if facts else {})

    # -- the event alone ------------------------------------------------------------------------------------------

    def _decoded(self):
        schema = f", writer's schema {self.copy.schema_id}" if self.copy.schema_id else ""
        form = "an Avro datum" if self.copy.encoding == "avro" else "a JSON object"
        return PASSED, f"{form} of {len(self.copy.payload):,} bytes{schema}"

    def _fields(self):
        if self.reason == "missing_field" and self.detail in _ALWAYS:
            return STOPPED, f"{self.detail} is missing, which every event needs"
        return PASSED, f"{', '.join(_ALWAYS)} are set"

    def _type(self):
        if self.reason == "unknown_type":
            return STOPPED, f"{self.kind} is no known type"
        return PASSED, f"{self.kind} is a known type"

    def _fields_of_its_type(self):
        if self.reason == "missing_field":
            return STOPPED, f"{self.detail} is missing, which {words.a(self.kind)} needs"
        needs = {"impression": "campaign_id is set", "conversion": "a conversion needs no more"}
        return PASSED, needs.get(self.kind, "campaign_id and impression_id are set")

    def _values(self):
        if self.reason != "bad_value":
            return PASSED, "every value can be one"
        if self.detail in self.said.wrong:
            return STOPPED, f"{self.detail} is of the wrong type"
        value = self.said.shown.get(self.detail)
        return STOPPED, f"{self.detail} cannot be " + ("what it says" if value is None else name(words.value(self.detail, value)))

    def _consent(self):
        asked, country = self.policy.screening.consent, self.said.get("country")
        if asked is None:
            return SKIPPED, "the policy asks for no consent"
        if country is None or country.upper() not in asked.required_in:
            return SKIPPED, f"not asked for {'where no country is said' if country is None else 'in ' + name(country)}"
        wanted = f"purpose{'s' * (len(asked.asked.purposes) > 1)} {', '.join(map(str, asked.asked.purposes))}"
        wanted += f" and vendor {asked.asked.vendor}" if asked.asked.vendor else ""
        given = self.said.get("consent")
        facts = {"country": country, "purposes": list(asked.asked.purposes), "vendor": asked.asked.vendor}
        if given is not None and consent.granted(given, asked.asked):
            return PASSED, f"asked for in {country.upper()}: {wanted} granted", facts | {"granted": True}
        why = "there is no consent string" if given is None else "the consent string does not grant it"
        says = f"asked for in {country.upper()}: {wanted}; {why}"
        if asked.otherwise == REJECT:
            return STOPPED, f"{says}: refused", facts | {"granted": False}
        return NOTED, f"{says}: counts without its user", facts | {"granted": False}

    def _future(self):
        ahead = self.said.get("event_time") - self.copy.received
        facts = {"ahead_micros": ahead}
        if self.reason == "future":
            return STOPPED, f"{span(ahead)} ahead of its receipt; {span(e.FUTURE_TOLERANCE_MICROS)} are allowed", facts
        return PASSED, f"happened {words.before(-ahead)} its receipt", facts

    def _too_late(self):
        watermark, horizon = self.copy.watermark, self.policy.counting.dedup_horizon
        if watermark is None:
            return PASSED, "no watermark stood yet when it was read", {"watermark": None}
        behind = watermark - self.said.get("event_time")
        facts = {"watermark": time(watermark), "behind_micros": behind}
        says = f"the watermark stood at {time(watermark)}, the event is {words.behind(behind)} it"
        if self.reason == REASONS[-1]:
            return STOPPED, f"{says}; {span(horizon)} are allowed", facts
        hour = self.said.get("event_time") // e.MICROS_PER_HOUR * e.MICROS_PER_HOUR
        closed = watermark >= hour + e.MICROS_PER_HOUR + self.policy.counting.allowed_lateness
        return PASSED, says + (": its hour had closed, it restates it" if closed else ""), facts | {"hour_closed": closed}

    # -- among others ---------------------------------------------------------------------------------------------

    def _identity(self):
        first, outcome = self.fate.first, self.fate.outcome
        if outcome not in ("duplicate", "id_conflict") or first is None:
            within = f" within its impression {name(self.said.get('impression_id'))}" if self.fate.followup else ""
            return PASSED, f"the first with this event_id{within}"
        facts = {"first": first.place, "same": outcome == "duplicate"}
        if outcome == "duplicate":
            return STOPPED, f"the same event had come before: {_where(first)}", facts
        differ = self.said.differs(self.other)
        return (STOPPED, f"another event with this identity had come before: {_where(first)}; they differ in {words.listing(differ)}",
                facts | {"differ": differ})

    def _join(self):
        if not self.fate.followup:
            return SKIPPED, f"{words.a(self.kind)} follows no impression"
        wanted, horizon = name(self.said.get("impression_id")), span(self.policy.counting.join_horizon)
        if self.fate.outcome == "orphan":
            says = f"no impression {wanted} to join came within {horizon}"
            for other in self.fate.apart:
                gap = int(self.copy.row["time"]) - int(other.row["time"])
                says += f"; one stands in {_where(other)}, this event is {words.behind(gap, 'after', 'before')} it"
            return STOPPED, says, {"impressions": [other.place for other in self.fate.apart]}
        if self.fate.impression is None:
            return NOTED, f"waits for its impression {wanted}"
        joined = self.fate.impression.copy
        gap = int(self.copy.row["time"]) - int(joined.row["time"])
        waited = "; it came first and waited" if self.fate.waited else ""
        return (PASSED, f"joins impression {wanted}, {words.behind(gap, 'after', 'before')} it ({_where(joined)}){waited}",
                {"impression": joined.place, "apart_micros": gap, "waited": self.fate.waited})

    def _order(self):
        order = self.said.get("order_id")
        if self.kind != "conversion" or order is None:
            return SKIPPED, "names no order" if self.kind == "conversion" else f"{words.a(self.kind)} has no order"
        stands = self.fate.stands
        if stands is None or stands.place == self.copy.place:
            more = f": the earliest of {count(self.fate.orders, 'conversion')}" if self.fate.orders > 1 else ", alone"
            return PASSED, f"stands for order {name(order)}{more}", {"stands": self.copy.place}
        return (STOPPED, f"of order {name(order)} the earliest conversion stands, {name(stands.event_id)} of "
                         f"{time(int(stands.row['time']))} ({_where(stands)})", {"stands": stands.place})

    # -- invalid traffic ------------------------------------------------------------------------------------------

    def _robot(self):
        return self._screened("robot", "user_agent", screened.agent(self.said.get("user_agent"), self.policy.screening),
                              "the user agent is no declared robot's")

    def _datacentre(self):
        return self._networks("datacentre", self.policy.screening.datacentre)

    def _listed(self):
        return self._networks("listed", self.policy.screening.listed)

    def _networks(self, rule: str, lists):
        if not lists:
            return SKIPPED, "the policy has no such list"
        return self._screened(rule, "ip", screened.address(self.said.get("ip"), lists), "the address is in no such network")

    def _screened(self, rule: str, what: str, match: screened.Match | None, otherwise: str):
        if not self.said.has(what):
            return PASSED, f"there is no {words.PLAIN[what]}"
        if match is None:
            return PASSED, otherwise
        found = match.list
        facts = {"list": found.name, "version": found.version, "date": found.date and found.date.isoformat(), "entry": match.entry}
        return STOPPED, f"the {words.PLAIN[what]} is found by {name(match.entry)} of {words.listed(found)}", facts

    def _rate(self):
        if not self.policy.screening.rate.asked:
            return SKIPPED, "the policy has no rates"
        rates = self.fate.rates
        facts = {rate.kind: {"events": rate.events, "most": rate.most} for rate in rates}
        says = "; ".join(_rated(rate) for rate in rates) or "neither user nor address whose rate is asked for"
        beyond = any(rate.events > rate.most for rate in rates)
        return STOPPED if beyond else PASSED, says, facts

    def _its_impression(self):
        if not self.fate.followup:
            return SKIPPED, f"{words.a(self.kind)} follows no impression"
        if self.fate.impression is None:
            return NOTED, "not known yet"
        if not self.fate.impression.verdict:
            return PASSED, "its impression is valid"
        reason, entry = e.INVALID_REASONS[self.fate.impression.verdict], ""
        screening, theirs = self.policy.screening, self.other
        match = {"robot": lambda: screened.agent(theirs.get("user_agent"), screening),
                 "datacentre": lambda: screened.address(theirs.get("ip"), screening.datacentre),
                 "listed": lambda: screened.address(theirs.get("ip"), screening.listed)}.get(reason, lambda: None)()
        if reason == "rate":
            entry = "; explain it for the counts"
        elif match is not None:
            entry = f", by {name(match.entry)} of {words.listed(match.list)}"
        return STOPPED, f"its impression is invalid traffic: {reason}{entry}", {"reason": reason, "entry": match and match.entry}

    # -- the end --------------------------------------------------------------------------------------------------

    def _counted(self):
        if self.fate.outcome is None:
            return NOTED, "not yet"
        if self.kind == "conversion":
            return PASSED, "a valid conversion, which attribution credits"
        says = f"in the hour {time(hour(self.fate.head))}" + (", its impression's" if self.fate.followup else "")
        adds = words.adds(self.fate.adds)
        less = [of for of in self.fate.alone if of not in self.fate.adds]
        if less:
            adds += f" ({words.listing(less)} had been counted for this impression before)"
        return PASSED, f"{says}: {adds}"


def hour(copy: Copy) -> int:
    return int(copy.row["time"]) // e.MICROS_PER_HOUR * e.MICROS_PER_HOUR


def dimensions(copy: Copy) -> dict[str, str | None]:
    """Those that an impression or a conversion states, as the tables have them."""
    codes = copy.batch.dims["codes"][copy.row["dims"]][: len(e.DIMENSIONS)].tolist()
    return {of: None if code < 0 else copy.batch.labels[code] for of, code in zip(e.DIMENSIONS, codes)}


def is_probe(copy: Copy) -> bool:
    return (dimensions(copy)["advertiser_id"] or "").startswith(TEST_ADVERTISER)


def _where(copy: Copy) -> str:
    return f"{name(copy.place)}, received {time(copy.received)}"


def _rated(rate: Rate) -> str:
    whose = {"user": "its user", "ip": "its address"}[rate.kind]
    return f"{whose} had {count(rate.events, 'distinct event')} in that hour, {rate.most:,} are allowed"
