"""What became of an event: found, followed through the machines, told rule by rule and held against the tables."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from measurement.columnar.intake import Intake
from measurement.explain.check import check
from measurement.explain.find import Found, find
from measurement.explain.follow import follow
from measurement.explain.said import said
from measurement.explain.steps import steps
from measurement.explain.story import Story
from measurement.explain.tables import Tables
from measurement.io.framing import WriterSchema
from measurement.model.policy import Policy


@dataclass(frozen=True)
class Reading:
    """What was received, as often as it is read, and the tables made of it. ``rule_version`` is the last run's."""

    where: str
    intakes: Callable[[], Iterator[Intake]]
    schemas: Mapping[str, WriterSchema]  # the writers', by id
    tables: Callable[[], AbstractContextManager[Tables]]
    rule_version: str
    notes: list[str] = field(default_factory=list)


@dataclass
class Explanation:
    event_id: str
    where: str
    found: Found
    stories: list[Story]
    given: str  # rule_version of the policy that it was derived by
    run: str  # and of the last run
    notes: list[str]

    @property
    def other_rules(self) -> tuple[list[str], list[str]]:
        """The parts of rule_version that only the policy given has, and those that only the run's rules have."""
        given, run = self.given.split(), self.run.split()
        return [part for part in given if part not in run], [part for part in run if part not in given]

    @property
    def agrees(self) -> bool:
        return all(story.agrees for story in self.stories)


def explain(reading: Reading, event_id: str, policy: Policy) -> Explanation:
    """Reads what was received once to find the event's copies, and once more to follow those that were accepted."""
    found = find(reading.intakes(), event_id)
    accepted = [copy for copy in found.copies if copy.batch is not None]
    fates = {fate.copy.place: fate for fate in follow(reading.intakes(), accepted, policy)} if accepted else {}
    stories = []
    for copy in found.copies:
        own, fate = said(copy, reading.schemas), fates.get(copy.place)
        other = None if fate is None else fate.first or fate.impression and fate.impression.copy
        told = steps(copy, own, fate, other and said(other, reading.schemas), policy)
        stories.append(Story(copy, own, fate, told))
    if stories:
        with reading.tables() as tables:
            check(stories, tables, policy)
    return Explanation(event_id, reading.where, found, stories, policy.rule_version, reading.rule_version, list(reading.notes))
