"""Consent strings, and which of them grant purpose 7, measuring how ads perform: known from how each was made.

The bits of a TCF string's core segment: 6 version, 36 created, 36 updated, 12 CMP, 12 its version, 6 screen, 12 language,
12 vendor list, 6 policy, 1 service specific, 1 texts, 12 special features, and from bit 152 on 24 purposes, the first first.
"""

_REFUSED = "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA"  # no purpose; one of IAB's published examples
_ALL = "CQft6wAQft6wAEsABBENCCEgAP_gAH_gAAYgF5wAgAGQAeAvMAAAAAAA"  # purposes 1 to 11
_TWO = "CQft6wAQft6wAEsABBENCCFgAIIAAAAAAAYgAKLO7UAAAAAA"  # purposes 1 and 7
_ALL_BUT_7 = "CQft6wAQft6wAEsABBENCCEgAP3gAEHAAAYgF5wAgAGQAeAvMAAAAAAA"
_INTEREST = "CQft6wAQft6wAEsABBENCCEgAIAAAEPAAAYgF5wAgAGQAeAvMAAAAAAA"  # purpose 1; 7 as a legitimate interest, no consent
_DISCLOSED, _PUBLISHER = "IAKP__8A", "YEAAAAAAAAAA"  # segments behind the core; the publisher's own has a purpose 7 too

# GPP headers name their sections: DBABMA the TCF's alone (2), DBACNYA it and the US privacy string (2, 6), DBABLA US states (7).
GRANTING = (_ALL, _TWO, f"DBABMA~{_ALL}", f"DBACNYA~{_TWO}~1YNN", f"{_ALL}.{_DISCLOSED}", f"{_TWO}.{_DISCLOSED}.{_PUBLISHER}")
REFUSING = (
    _ALL_BUT_7, _INTEREST, f"DBABMA~{_ALL_BUT_7}", f"DBACNYA~{_REFUSED}~1YNN", f"{_ALL_BUT_7}.{_DISCLOSED}.{_PUBLISHER}",
    "DBABLA~BVQqAAAAAgA",
)
BROKEN = (
    _ALL[:20],  # cut off before the purposes
    _ALL[:24] + "!!!!" + _ALL[28:],
    "BOEFEAyOEFEAyAHABDENAI4AAAB9vABAASA",  # of the framework's first version
    f"DBABMA~{_ALL[:20]}", f"!~{_ALL}", "DBABMA", "no consent string", "-",
)

# The one numbering used everywhere else: 0 is no string, 1 to 3 are all that a log without screening holds.
CONSENTS = (
    None, _REFUSED, "COtybn4PA_zT4KjACBENAPCIAEBAAECAAIAAAAAAAAAA", f"DBABMA~{_REFUSED}",  # the second: purposes 2 and 10
    *GRANTING, *REFUSING, *BROKEN,
)
GRANTED = tuple(consent in GRANTING for consent in CONSENTS)
