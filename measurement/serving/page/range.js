// The range of hours that a view shows: from its address, or the last two days that have figures.

import { el, wrong } from "./dom.js";
import { DAY, HOUR, instant, rfc3339 } from "./format.js";

const LONGEST = 92; // days: an hour is some pixels wide
const SPANS = { "1 day": DAY, "2 days": 2 * DAY, "7 days": 7 * DAY, "28 days": 28 * DAY };

// {from, to} in ms, or {why} in words where the address has no range that can be shown.
export function rangeOf(asked, newest) {
  const end = Math.floor(newest / DAY) * DAY + DAY;
  const [from, to] = ["from", "to"].map((name) => (asked.has(name) ? instant(asked.get(name)) : null));
  const made = { from: from ?? (to ?? end) - 2 * DAY, to: to ?? end };
  return { ...made, why: trouble(made, asked) };
}

function trouble({ from, to }, asked) {
  for (const [name, at] of Object.entries({ from, to })) {
    if (Number.isNaN(at)) return `“${asked.get(name)}” is no time such as 2026-03-02T00:00:00Z.`;
    if (at % HOUR) return `${rfc3339(at)} is not a whole hour. An hour is the finest there is, and half of one cannot be told.`;
  }
  if (from >= to) return "The range ends before it begins: “from” must be before “to”.";
  if (to - from > LONGEST * DAY) return `The range is longer than ${LONGEST} days. Choose a shorter one, or export it by day.`;
  return null;
}

export function address(advertiser, from, to, campaign) {
  const asked = new URLSearchParams({ from: rfc3339(from), to: rfc3339(to), ...(campaign ? { campaign } : {}) });
  return `#/a/${encodeURIComponent(advertiser)}?${asked}`;
}

export function ranging(advertiser, range, campaign) {
  const [from, to] = [when("from", "From", range.from), when("to", "to, not included", range.to)];
  const go = (event) => {
    event.preventDefault();
    location.hash = address(advertiser, from.at(), to.at(), campaign);
  };
  const end = Number.isNaN(range.to) ? null : range.to;
  return el("div", {},
    el("form", { class: "form", onsubmit: go }, from.parts, to.parts, el("span", { class: "quiet" }, "UTC"),
      el("button", { type: "submit" }, "Show"),
      end && Object.entries(SPANS).map(([name, span]) => el("a", { href: address(advertiser, end - span, end, campaign), class: "span" }, name))),
    campaign && el("p", {}, "Only campaign ", el("strong", {}, campaign), ". ",
      el("a", { href: address(advertiser, range.from, range.to, null) }, "All campaigns")),
    range.why && wrong(range.why));
}

// A day and an hour: no browser's clock of twelve hours, and no minutes, which cannot be told.
function when(id, label, at) {
  const text = Number.isNaN(at) ? "" : rfc3339(at);
  const day = el("input", { type: "date", id, value: text.slice(0, 10), required: true });
  const hours = Array.from({ length: 24 }, (_, i) => `${String(i).padStart(2, "0")}:00`);
  const hour = el("select", { "aria-label": `${label}: hour` }, hours.map((name) => el("option", { value: name, selected: name.slice(0, 2) === text.slice(11, 13) }, name)));
  return { at: () => instant(`${day.value}T${hour.value}Z`), parts: [el("label", { for: id }, label), day, hour] };
}
