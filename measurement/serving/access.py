"""Who asks, and whether they may: the key in the Authorization header, its owner against the path."""

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from fastapi import Request

from measurement.serving.keys import Key, KeyRing
from measurement.serving.limits import Buckets, Limits, network
from measurement.serving.problems import Problem
from measurement.serving.reports import is_probe

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ad-measurement"'}
_KEY_LIKE = re.compile(rb"adm_[0-9a-f]{16}_", re.IGNORECASE)
_KEY_NAMES = {"key", "api_key", "apikey", "api-key", "access_token", "token", "authorization", "bearer"}
_KEY_HEADERS = (b"x-api-key", b"api-key", b"x-auth-token", b"x-authorization")


class Access:
    """Used as a dependency of each route that needs a key; what it raises is a Problem, before any parameter is looked at."""

    def __init__(self, keys: KeyRing, limits: Limits, clock: Callable[[], float]):
        self._keys = keys
        self._asking = Buckets(limits.rate, limits.burst, clock)
        self._refused = Buckets(limits.refused_rate, limits.refused_burst, clock)

    async def of_advertiser(self, request: Request, advertiser_id: str) -> Key:
        """A key of that advertiser, or of sales. 403 is the same whether or not there is such an advertiser."""
        key = self._key(request)
        if not key.sales and key.advertiser_id != advertiser_id:
            raise _forbidden()
        if is_probe(advertiser_id):  # only sales gets here: an advertiser's key is never a probe's
            raise nobody()
        return key

    async def sales_of_advertiser(self, request: Request, advertiser_id: str) -> Key:
        """A key of sales alone."""
        key = await self.of_sales(request)
        if is_probe(advertiser_id):
            raise nobody()
        return key

    async def of_sales(self, request: Request) -> Key:
        key = self._key(request)
        if not key.sales:
            raise _forbidden()
        return key

    def _key(self, request: Request) -> Key:
        _refuse_misplaced(request)
        given = [value for name, value in request.scope["headers"] if name == b"authorization"]
        scheme, _, text = given[0].decode("latin-1").partition(" ") if len(given) == 1 else ("", "", "")
        key = self._keys.find(text.strip(" ")) if scheme.lower() == "bearer" else None
        if key is None:
            self._refuse(request, bool(given))
        request.state.key_id = key.id
        if wait := self._asking.take(key.id):
            raise Problem(429, "too-many-requests", "This key asks more often than it may.", {"Retry-After": str(wait)})
        if len(request.query_params.multi_items()) != len(request.query_params):
            raise Problem(400, "parameters", "A parameter is given more than once.")
        return key

    def _refuse(self, request: Request, given: bool) -> None:
        if wait := self._refused.take(network(request.client.host if request.client else "")):
            raise Problem(429, "too-many-refused", "Too many requests without a valid key came from this address.",
                          {"Retry-After": str(wait)})
        challenge = dict(_CHALLENGE)
        if given:
            challenge["WWW-Authenticate"] += ', error="invalid_token"'
        raise Problem(401, "no-valid-key", "A valid key is needed: Authorization: Bearer KEY.", challenge)


def _refuse_misplaced(request: Request) -> None:
    """A key in an address stands in histories and logs. It is refused there, also beside a right one: nobody shall get used to it."""
    scope = request.scope
    names = {name.lower() for name in request.query_params}
    places = (scope["query_string"], scope.get("raw_path", b""), *(value for name, value in scope["headers"] if name == b"cookie"))
    if names & _KEY_NAMES or any(_KEY_LIKE.search(unquote_to_bytes(place)) for place in places) \
            or any(name in _KEY_HEADERS for name, _ in scope["headers"]):
        raise Problem(400, "key-misplaced", "A key is sent in the Authorization header and nowhere else. If this was a real one, have it "
                      "revoked: addresses are kept in logs.")


def _forbidden() -> Problem:
    return Problem(403, "not-yours", "This key is not for these figures.")


def nobody() -> Problem:
    return Problem(404, "no-such-advertiser", "Nothing has been counted for an advertiser of this id.")
