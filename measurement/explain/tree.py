"""An explanation for machines: everything, and of personal data only that it is there."""

from measurement.explain.explanation import Explanation
from measurement.explain.said import PERSONAL, TIMES
from measurement.explain.story import Story
from measurement.explain.tables import plain
from measurement.explain.words import value
from measurement.paths.texts import time


def tree(it: Explanation) -> dict:
    found = it.found
    ours, theirs = it.other_rules
    return {
        "event_id": it.event_id, "found": len(found.copies) + found.more, "explained": len(it.stories), "agrees": it.agrees,
        "searched": {"where": it.where, "events": found.events, "sources": found.sources, "undecodable": found.unread,
                     "undecodable_with_its_bytes": found.suspects, "without_event_id": found.nameless},
        "rules": {"given": it.given, "run": it.run, "only_given": ours, "only_run": theirs}, "notes": it.notes,
        "copies": [_story(story) for story in it.stories],
    }


def _story(story: Story) -> dict:
    copy, fate = story.copy, story.fate
    counted = fate is not None and fate.head is not None and story.outcome in ("counted", "invalid_traffic")
    return {
        "source": copy.source, "source_position": copy.position, "received_at": time(copy.received), "encoding": copy.encoding,
        "schema_id": copy.schema_id, "watermark": None if copy.watermark is None else time(copy.watermark),
        "event": {name: value(name, of) if name in TIMES else of for name, of in story.said.shown.items()},
        "of_wrong_type": list(story.said.wrong), "personal": [name for name in PERSONAL if story.said.has(name)],
        "outcome": story.outcome or "waiting", "reason": story.reason or None,
        "rules": [{"rule": step.rule, "result": step.result, "says": step.says or None, "facts": step.facts} for step in story.steps],
        "counted_under": {"window_start": time(story.hour), **story.dimensions} if counted else None,
        "adds": fate.adds if counted else {},
        "touch": story.is_touch if fate is not None and story.said.get("event_type") in ("impression", "click") else None,
        "credits": [{name: plain(of) for name, of in row.items()} for row in ([] if story.shadowed else story.credits)],
        "rejects_of_its_impression": [{name: plain(of) for name, of in row.items()} for row in story.refused],
        "checks": [{"table": check.table, "agrees": check.agrees, "says": check.says} for check in story.checks],
        "history": [{**{name: plain(of) for name, of in revision.row.items()}, "changed": {
            name: {"before": before, "after": after} for name, (before, after) in revision.changed.items()}}
            for revision in story.history],
    }
