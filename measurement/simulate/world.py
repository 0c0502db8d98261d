"""Who advertises what, and where: drawn once per log, before any event.

The unit that an impression draws is a *package*: one line item, one creative and one placement of a campaign. It
fixes nearly all of an event's text, and so bounds the rows of the delivery table: packages x their few countries
and device types x hours.
"""

from dataclasses import dataclass

import numpy as np

from measurement.model.events import FORMATS
from measurement.simulate.agents import CTV, DESKTOP, DEVICES, MOBILE, SPEAKER, TABLET

COUNTRIES = (None, "DE", "FR", "GB", "SE", "US", "NL", "ES", "IT", "PL", "NO", "BR", "JP")
CONTEXT_FORMATS = (None, *FORMATS, "hologram")  # the last is no format: one of the bad values
DISPLAY, VIDEO, AUDIO, HOLOGRAM = range(1, 5)
CURRENCIES = (None, "EUR", "GBP", "SEK", "USD")
_HOME_CURRENCY = {"GB": 2, "SE": 3, "US": 4}  # by the advertiser's home country; EUR elsewhere
PRICING_MODELS = ("cpm", "cpc", "cpv", "flat", "cpa")
CPM, CPC, CPV, FLAT, CPA = range(5)  # flat and cpa put no price on an impression or on what follows it
CONVERSION_TYPES = (None, "purchase", "signup", "app_install", "lead")

# Of `consents`: transparency strings of IAB's published examples for Europe, a GPP string for the United States, none elsewhere.
EUROPE, AMERICA = (1, 2), 3

# Who sends what: the ad server impressions and clicks, players quartiles, a verification vendor viewability.
SOURCES = ("adserver-eu", "adserver-us", "player-sdk", "verification", "site-pixel", "shop-server")
ADSERVER_EU, ADSERVER_US, PLAYER, VERIFICATION, PIXEL, SHOP = range(6)
PUBLISHERS = (None, *(f"pub-{i:03d}" for i in range(1, 61)))

EXPERIMENTS = ((None, None), *((f"exp-{i}", arm) for i in (1, 2, 3) for arm in ("test", "control")))

_SIZES = {
    DISPLAY: ((300, 250), (728, 90), (320, 50), (160, 600), (970, 250)),
    VIDEO: ((1920, 1080), (1280, 720)),
    AUDIO: ((None, None),),
}
_DURATIONS = {DISPLAY: (None,), VIDEO: (15_000, 30_000, 6_000, 20_000), AUDIO: (30_000, 20_000)}  # ms
_DEVICES = {  # device types that a line item of a format may aim at, the likeliest first
    DISPLAY: ((MOBILE, DESKTOP, TABLET), (DESKTOP, MOBILE, TABLET), (MOBILE, TABLET, DESKTOP)),
    VIDEO: ((CTV, MOBILE, DESKTOP), (MOBILE, CTV, TABLET), (DESKTOP, MOBILE, CTV)),
    AUDIO: ((MOBILE, SPEAKER, DESKTOP), (SPEAKER, MOBILE, TABLET)),
}
# Main formats by the rank of a campaign: a pattern, not a draw, so that every seed has about the same mix.
_MAIN_FORMATS = (DISPLAY, VIDEO, DISPLAY, DISPLAY, AUDIO, VIDEO, DISPLAY, DISPLAY, VIDEO, DISPLAY)
_PRICINGS = {DISPLAY: (CPM, CPM, CPC, CPM, FLAT), VIDEO: (CPM, CPV, CPM, CPV, FLAT), AUDIO: (CPM, CPM, CPA)}
_PRICES = {CPM: (2_000, 12_000), CPC: (200_000, 1_500_000), CPV: (10_000, 40_000), FLAT: (0, 1), CPA: (0, 1)}  # micros

ADVERTISERS, CAMPAIGNS = 40, 120


@dataclass(frozen=True)
class World:
    """The packages (P of them) and what each fixes."""

    bookings: list[tuple[str, str, str, str, str]]  # P x (advertiser, campaign, line item, creative, placement)
    specs: list[tuple]  # P x (creative width and height in px, ad duration in ms, pricing model)
    share: np.ndarray  # f8[P]: cumulative share of the impressions, the last 1
    advertiser: np.ndarray  # i8[P]
    format: np.ndarray  # u1[P]
    pricing: np.ndarray  # u1[P]
    price: np.ndarray  # i4[P]: micros of the event that is billed
    currency: np.ndarray  # u1[P]
    duration: np.ndarray  # i8[P]: ms of media, 0 for display
    publisher: np.ndarray  # i2[P]
    experiment: np.ndarray  # u1[P]: number of the experiment, 0 for none
    countries: np.ndarray  # u1[P, 3]: the likeliest first
    devices: np.ndarray  # u1[P, 3]: the likeliest first


def build_world(rng: np.random.Generator) -> World:
    home = rng.choice(np.arange(1, len(COUNTRIES)), size=ADVERTISERS, p=_zipf(len(COUNTRIES) - 1, 0.8))
    advertiser_of = rng.choice(ADVERTISERS, size=CAMPAIGNS, p=_zipf(ADVERTISERS, 0.9))
    campaign_share = _zipf(CAMPAIGNS, 1.05)
    rows = []
    line_item = creative = 0
    for campaign in range(CAMPAIGNS):
        advertiser = int(advertiser_of[campaign])
        market = int(home[advertiser])
        others = rng.choice([c for c in range(1, len(COUNTRIES)) if c != market], size=2, replace=False)
        placements = rng.choice(np.arange(1, 400), size=3, replace=False, p=_zipf(399, 0.6))
        for item in range(int(rng.integers(1, 4))):
            line_item += 1
            form = _MAIN_FORMATS[campaign % len(_MAIN_FORMATS)] if item < 2 else DISPLAY
            pricing = _pick(_PRICINGS[form], line_item)
            price = int(rng.integers(*_PRICES[pricing]))
            devices = _pick(_DEVICES[form], line_item)
            for made in range(int(rng.integers(1, 3))):
                creative += 1
                width, height = _pick(_SIZES[form], creative)
                duration = _pick(_DURATIONS[form], line_item)
                for placement in placements[: 1 + (creative % 2)]:
                    rows.append((
                        (f"adv-{advertiser + 1}", f"cmp-{campaign + 1:04d}",
                         f"li-{line_item:05d}", f"cr-{creative:05d}", f"pl-{placement:04d}"),
                        (width, height, duration, PRICING_MODELS[pricing]),
                        campaign_share[campaign] / (1 + item) / (1 + made), advertiser, form, pricing, price,
                        _HOME_CURRENCY.get(COUNTRIES[market], 1) if pricing != FLAT else 0, duration or 0,
                        int(placement) % (len(PUBLISHERS) - 1) + 1,
                        campaign // 7 % 4 if campaign % 7 == 3 else 0,
                        (market, *others), devices,
                    ))
    (
        bookings, specs, share, advertiser, form, pricing, price, currency, duration, publisher, experiment, countries,
        devices,
    ) = zip(*rows)
    cumulative = np.cumsum(share)
    return World(
        list(bookings), list(specs), cumulative / cumulative[-1], np.array(advertiser, np.int64), np.array(form, np.uint8),
        np.array(pricing, np.uint8), np.array(price, np.int32), np.array(currency, np.uint8), np.array(duration, np.int64),
        np.array(publisher, np.int16), np.array(experiment, np.uint8), np.array(countries, np.uint8),
        np.array(devices, np.uint8),
    )


def pool_of(country: np.ndarray, device: np.ndarray) -> np.ndarray:
    """People live in pools, one for each country and device type; codes -> number of the pool."""
    return country.astype(np.int32) * len(DEVICES) + device


def consent_of(country: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Country codes and scrambled people (u8) -> u1 codes into CONSENTS."""
    european = np.array([name not in (None, "US", "BR", "JP") for name in COUNTRIES])
    chosen = np.where(person >> np.uint64(40) & np.uint64(3) == 0, EUROPE[1], EUROPE[0])
    return np.where(european[country], chosen, np.where(country == COUNTRIES.index("US"), AMERICA, 0)).astype(np.uint8)


def context_code(form: np.ndarray, country: np.ndarray, device: np.ndarray) -> np.ndarray:
    """Codes of format, country and device type, 0 for unknown -> one i2 code; `context_text` is its inverse."""
    return ((form.astype(np.int16) * len(COUNTRIES) + country) * len(DEVICES) + device).astype(np.int16)


def context_text(code: int) -> tuple[str | None, str | None, str | None]:
    place, device = divmod(code, len(DEVICES))
    form, country = divmod(place, len(COUNTRIES))
    return CONTEXT_FORMATS[form], COUNTRIES[country], DEVICES[device]


PLACES = len(COUNTRIES) * len(DEVICES)  # contexts of one format
CONTEXTS = len(CONTEXT_FORMATS) * PLACES


def _zipf(count: int, exponent: float) -> np.ndarray:
    weights = 1.0 / np.arange(1, count + 1) ** exponent
    return weights / weights.sum()


def _pick(choices: tuple, number: int):
    return choices[number % len(choices)]
