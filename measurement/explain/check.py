"""Whether the tables say of each copy what was derived: every row that it should be in, and none that it should not."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from measurement.explain.story import Check, Revision, Story
from measurement.explain.tables import Tables, second
from measurement.explain.words import count, name
from measurement.model.attribution import Attribution
from measurement.model.events import COUNTS, REJECTED
from measurement.model.policy import Policy
from measurement.state.join import DETAILS

LEDGER, REJECT, DELIVERY, INVALID, CREDIT, EXPLAINED = (
    "ledger", "rejects", "delivery", "invalid_traffic", "conversion_credits", "rules")


def check(stories: Sequence[Story], tables: Tables, policy: Policy) -> None:
    """Fills in each story's checks, its delivery row's history and its credits; ``policy``: that they were derived by."""
    alike = Counter(story.entry for story in stories)
    for story in stories:
        story.checks = [_explained(story), _ledger(story, tables, alike[story.entry]), _reject(story, tables)]
        if story.outcome in ("counted", "invalid_traffic"):
            story.checks += _delivered(story, tables, policy.rule_version)
        story.checks += _credited(story, tables, policy.attribution)
        story.checks = [each for each in story.checks if each is not None]
        if story.outcome == "orphan":
            story.refused = tables.rejects_of(story.said.get("impression_id"), "impression")


def _explained(story: Story) -> Check | None:
    """The rules were asked here one by one; the machines decide for themselves."""
    if story.told == story.outcome:
        return None
    return Check(EXPLAINED, False, f"by the rules as told above it would be {story.told}, the machines decide {story.outcome}")


def _ledger(story: Story, tables: Tables, alike: int) -> Check | None:
    if story.outcome is None:
        return None
    row = tables.ledger(*story.entry)
    events = 0 if row is None else row["events"]
    says = f"{events:,} {story.outcome} of its hour, source and type"
    return Check(LEDGER, events >= alike, says if alike == 1 else f"{says}; {alike} copies here")


def _reject(story: Story, tables: Tables) -> Check:
    row = tables.reject(story.copy.place)
    if story.outcome not in REJECTED:
        return Check(REJECT, row is None, "no reject stands for it" if row is None else f"a reject stands for it: {row['reason']}")
    if row is None:
        return Check(REJECT, False, f"no reject {name(story.copy.place)} stands")
    detail = story.copy.refused[1] if story.copy.refused else DETAILS[story.outcome]
    event_id = story.said.get("event_id")
    same = (row["reason"], row["detail"], row["event_id"]) == (story.outcome, detail, event_id)
    return Check(REJECT, same, f"{name(row['reject_id'])}: {row['reason']}, {name(row['detail'])}")


def _delivered(story: Story, tables: Tables, rule_version: str) -> list[Check]:
    out, event_type = [], story.said.get("event_type")
    if event_type != "conversion":
        revisions = tables.delivery(story.hour, story.dimensions)
        zeros = dict.fromkeys(COUNTS, 0)
        for before, row in zip([zeros, *revisions], revisions):
            story.history.append(Revision(row, {c: (before[c], row[c]) for c in COUNTS if before[c] != row[c]}))
        if not revisions:
            out.append(Check(DELIVERY, False, "its row is not there"))
        else:
            last = story.history[-1]
            short = [c for c, n in story.fate.adds.items() if last.row[c] < n]
            because = f" because {last.row['restated_because']}" if last.row["restated_because"] else ""
            rules = "these rules" if last.row["rule_version"] == rule_version else f"other rules: {name(last.row['rule_version'])}"
            says = (f"its row stands as {last.row['status']}{because}, revision {last.text} of {second(last.row['published_at'])}, "
                    f"by {rules}")
            out.append(Check(DELIVERY, not short, f"{says}, with less {', '.join(short)} than it adds" if short else says))
    if story.outcome == "invalid_traffic":
        row = tables.invalid(story.hour, story.dimensions, event_type, story.reason)
        events = 0 if row is None else row["events"]
        out.append(Check(INVALID, events > 0, f"{count(events, event_type)} left out by {story.reason} in its hour and dimensions"))
    return out


def _credited(story: Story, tables: Tables, attribution: Attribution) -> list[Check]:
    event_type = story.said.get("event_type")
    if story.fate is None or story.fate.head is None or event_type not in ("impression", "click", "conversion"):
        return []
    place = story.said.get("event_id"), story.said.get("event_time"), story.dimensions["advertiser_id"]
    if event_type == "conversion":
        story.credits = tables.credits_of(*place)
        return [] if story.shadowed else _whole(story, attribution)
    event_id, time, advertiser = place
    story.credits = [row for row in tables.credits_by(event_id, event_type, time, advertiser) if row["credit"] or row["value_micros"]]
    if story.shadowed or story.is_touch or not story.credits:
        return []
    return [Check(CREDIT, False, f"{count(len(story.credits), 'row')} credit it, which is no touch")]


def _whole(story: Story, attribution: Attribution) -> list[Check]:
    """Of a valid conversion each model shares out exactly 1 and its value, of any other nothing."""
    due, value = (1, story.said.get("value_micros") or 0) if story.outcome == "counted" else (0, 0)
    models = {row["model"] for row in story.credits}
    if due:
        models |= set(attribution.rule_for(story.dimensions["advertiser_id"], story.said.get("event_time")).models)
    out = []
    for model in sorted(models):
        rows = [row for row in story.credits if row["model"] == model]
        credit, micros = sum((Decimal(row["credit"]) for row in rows), Decimal(0)), sum(row["value_micros"] for row in rows)
        standing = sum(row["credit"] != 0 for row in rows)
        says = f"{model}: credit {credit.normalize():f} over {count(standing, 'row')}, value {micros:,} of {value:,} micros"
        out.append(Check(CREDIT, (credit, micros) == (due, value), says))
    return out or [Check(CREDIT, True, "no credit, as it does not count")]
