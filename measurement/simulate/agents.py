"""User agents: what people's devices send, and what declared robots send.

Two lists of the generator's own. Which of them a screening list must match is not asked here but in the tests,
so that the truth never depends on the list under test.
"""

DEVICES = (None, "desktop", "mobile", "tablet", "ctv", "speaker")
DESKTOP, MOBILE, TABLET, CTV, SPEAKER = range(1, 6)

_CHROME = [f"{v}.0.0.0" for v in range(131, 146)]
_FIREFOX = [f"{v}.0" for v in range(128, 148)]
_DESKTOP = ("Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64")
_PHONES = ("K", "SM-S921B", "SM-A546B", "Pixel 8", "Pixel 9 Pro", "M2101K6G", "CPH2581")
_IOS = ("16_7", "17_5", "17_6_1", "18_1", "18_3_2", "18_5", "26_0", "26_2")
_SAFARI = ("16.6", "17.5", "17.6", "18.1", "18.3", "18.5", "26.0", "26.2")
_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_IOS_WEBKIT = "AppleWebKit/605.1.15 (KHTML, like Gecko)"

# People's user agents by device type.
HUMAN: dict[int, list[str]] = {
    DESKTOP: [f"Mozilla/5.0 ({on}) {_WEBKIT} Chrome/{v} Safari/537.36" for on in _DESKTOP for v in _CHROME]
    + [f"Mozilla/5.0 ({_DESKTOP[0]}) {_WEBKIT} Chrome/{v} Safari/537.36 Edg/{v}" for v in _CHROME]
    + [f"Mozilla/5.0 ({on}; rv:{v}) Gecko/20100101 Firefox/{v}" for on in _DESKTOP for v in _FIREFOX]
    + [f"Mozilla/5.0 ({_DESKTOP[1]}) {_IOS_WEBKIT} Version/{v} Safari/605.1.15" for v in _SAFARI],
    MOBILE: [
        f"Mozilla/5.0 (Linux; Android {14 + i % 3}; {phone}) {_WEBKIT} Chrome/{v} Mobile Safari/537.36"
        for i, phone in enumerate(_PHONES) for v in _CHROME
    ]
    + [
        f"Mozilla/5.0 (iPhone; CPU iPhone OS {ios} like Mac OS X) {_IOS_WEBKIT} Version/{v} Mobile/15E148 Safari/604.1"
        for ios, v in zip(_IOS, _SAFARI)
    ]
    + [
        f"Mozilla/5.0 (iPhone; CPU iPhone OS {ios} like Mac OS X) {_IOS_WEBKIT} CriOS/{v} Mobile/15E148 Safari/604.1"
        for ios in _IOS[3:] for v in _CHROME[-4:]
    ]
    + [
        f"Mozilla/5.0 (Linux; Android 14; SAMSUNG SM-S911B) {_WEBKIT} "
        f"SamsungBrowser/{v}.0 Chrome/121.0.0.0 Mobile Safari/537.36"
        for v in (25, 26, 27, 28)
    ],
    TABLET: [
        f"Mozilla/5.0 (iPad; CPU OS {ios} like Mac OS X) {_IOS_WEBKIT} Version/{v} Mobile/15E148 Safari/604.1"
        for ios, v in zip(_IOS, _SAFARI)
    ]
    + [f"Mozilla/5.0 (Linux; Android 13; SM-X910) {_WEBKIT} Chrome/{v} Safari/537.36" for v in _CHROME],
    CTV: [
        f"Mozilla/5.0 (SMART-TV; LINUX; Tizen {v}.0) {_WEBKIT} {chrome} TV Safari/537.36"
        for v, chrome in ((6, "76.0.3809.146/6.0"), (7, "94.0.4606.31/7.0"), (8, "108.0.5359.1/8.0"))
    ]
    + [
        f"Mozilla/5.0 (Web0S; Linux/SmartTV) {_WEBKIT} Chrome/{v}.0.0.0 Safari/537.36 WebAppManager"
        for v in (87, 94, 108, 120)
    ]
    + [f"Roku/DVP-{v}.0 ({v}.0.0.4{n}-CD)" for v in (12, 13, 14) for n in (41, 72)]
    + [f"AppleTV14,1/{v}" for v in ("17.6", "18.2", "18.5")]
    + [
        f"Mozilla/5.0 (Linux; Android 9; {model}) {_WEBKIT} Chrome/{_CHROME[-1]} Mobile Safari/537.36"
        for model in ("AFTKA", "AFTMM")
    ]
    + [
        f"Mozilla/5.0 (PlayStation; PlayStation 5/{v}.00) {_IOS_WEBKIT} Version/15.4 Safari/605.1.15"
        for v in (8, 9, 10)
    ],
    SPEAKER: ["Sonos/83.1-61240 (ZPS38)", "Sonos/85.0-64200 (ZPS27)", "Echo/1.0(APNG) PlayerInfo/8960323972"],
}

ROBOTS = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/141.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) "
    "Chrome/136.0.0.0 Safari/537.36",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
    "Mozilla/5.0 (compatible; MJ12bot/v1.4.8; http://mj12bot.com/)",
    "Mozilla/5.0 (compatible; DotBot/1.2; +https://opensiteexplorer.org/dotbot; help@moz.com)",
    "AdsBot-Google (+http://www.google.com/adsbot.html)",
    "Mediapartners-Google",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
    "CCBot/2.0 (https://commoncrawl.org/faq/)",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/138.0.0.0 Safari/537.36",
    "curl/8.5.0",
    "python-requests/2.32.3",
    "Wget/1.21.4",
    "Scrapy/2.11.2 (+https://scrapy.org)",
]

# The one numbering used everywhere else: 0 is no user agent, then people's by device, then robots'.
AGENTS: list[str | None] = [None]
FIRST_HUMAN = [0] * len(DEVICES)  # by device type
for _device, _agents in HUMAN.items():
    FIRST_HUMAN[_device] = len(AGENTS)
    AGENTS += _agents
FIRST_ROBOT = len(AGENTS)
AGENTS += ROBOTS
