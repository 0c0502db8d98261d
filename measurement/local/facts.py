"""The valid touches and conversions of a local run: its input files once more through the job's own reader and machines."""

import numpy as np

from measurement.columnar import facts as told
from measurement.columnar.batch import joined
from measurement.columnar.labels import Labels
from measurement.columnar.table import Keys
from measurement.local.again import intakes
from measurement.local.warehouse import Warehouse
from measurement.model.events import CLICK, CONVERSION, TEST_ADVERTISER
from measurement.model.policy import Policy
from measurement.paths.facts import Facts
from measurement.state.chain import Chain, facts_of


def read(warehouse: Warehouse, policy: Policy) -> Facts:
    """What stands of the files that the last run read. WarehouseError where there was no run, or a file is gone. The tables
    name no users, so that paths without a conversion cannot be read from them."""
    chain, parts = Chain(policy), []
    for intake in intakes(warehouse, policy):
        parts += facts_of(chain.take(intake))
    return _standing(parts)


def _standing(parts: list[told.Facts]) -> Facts:
    """The touches and conversions that all facts together leave standing, those of probes left out."""
    labels = Labels()
    facts, terms = [np.zeros(0, told.FACT)], [np.zeros((0, 5), np.int32)]
    for part in parts:
        code_of = np.array([*(labels.code(text) for text in part.labels), -1], np.int32)
        codes = np.vstack([code_of[part.terms["codes"]], np.full((1, 5), -1, np.int32)])
        facts.append(part.facts)
        terms.append(codes[part.facts["terms"]])
    facts, terms = np.concatenate(facts), np.concatenate(terms)
    ids = joined([part.ids for part in parts]) if parts else None
    events = Keys().add(facts["id_hi"].copy(), facts["id_lo"] ^ facts["time"].view(np.uint64))
    stands = np.bincount(events, facts["delta"], events.max(initial=-1) + 1) > 0
    probes = np.array([text.startswith(TEST_ADVERTISER) for text in labels.texts] + [False])
    whole = np.flatnonzero((facts["terms"] >= 0) & stands[events] & ~probes[terms[:, 0]])
    touches, conversions = (whole[(facts["type"][whole] == CONVERSION) == is_conversion] for is_conversion in (False, True))
    advertisers, touched, converted = _codes(labels, terms[touches, 0], terms[conversions, 0])
    channels, channel = _codes(labels, terms[touches, 1])
    currencies, currency = _codes(labels, terms[conversions, 2])
    user = np.column_stack([facts["user_hi"], facts["user_lo"]])
    known = (facts["user_hi"] != facts["id_hi"]) | (facts["user_lo"] != facts["id_lo"])  # a conversion without user has its own
    return Facts(
        advertisers, channels, currencies, user[touches], touched, channel, facts["time"][touches], facts["type"][touches] == CLICK,
        np.column_stack([facts["parent_hi"], facts["parent_lo"]])[touches],
        [] if ids is None else [ids[i].decode() for i in touches.tolist()],
        np.where(known[conversions, None], user[conversions], np.uint64(0)), converted, facts["time"][conversions],
        facts["value"][conversions], currency,
    )


def _codes(labels: Labels, *columns: np.ndarray) -> tuple[list[str | None], *tuple[np.ndarray, ...]]:
    """Columns of label codes as codes of the texts among them, null being one."""
    used, number = np.unique(np.concatenate(columns), return_inverse=True)
    texts = [None if code < 0 else labels.texts[code] for code in used.tolist()]
    edges = np.cumsum([len(column) for column in columns])[:-1]
    return texts, *(part.astype(np.int32) for part in np.split(number, edges))
