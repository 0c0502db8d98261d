// How a booking stands, by its row of the view `pacing`, and the table of bookings.

import { el, note, section, table } from "./dom.js";
import { count, day, NOTHING, parts, percent } from "./format.js";

const EARLY = 0.05; // of what is due: so much off is on time still

// The worst first.
export const STANDS = {
  "ended short": { sign: "✕", class: "bad" },
  behind: { sign: "▼", class: "bad" },
  ahead: { sign: "▲", class: "odd" },
  "on time": { sign: "✓", class: "good" },
  reached: { sign: "✓", class: "good" },
  "not begun": { sign: "◌", class: "quiet" },
};

export function judged(row) {
  if (row.flight === "not_begun") return "not begun";
  if (row.flight === "ended") return row.remaining > 0 ? "ended short" : "reached";
  if (row.pace === null) return "on time";
  if (row.pace < 1 - EARLY) return "behind";
  return row.pace > 1 + EARLY ? "ahead" : "on time";
}

const METRICS = {
  impressions: "impressions", viewable_impressions: "viewable impressions", clicks: "clicks", completes: "completed plays",
};

const amount = (row, n) => (row.metric === "spend_micros" ? parts(n / 1e6) : count(n));

export function pacing(rows) {
  if (!rows.length) {
    return section("Pacing", "pacing", note("Nothing is booked. What was is loaded by the command: measurement bookings load FILE."));
  }
  const order = Object.keys(STANDS);
  const sorted = [...rows].sort((a, b) => order.indexOf(judged(a)) - order.indexOf(judged(b)));
  return section("Pacing", "pacing",
    note("What was delivered of each booking by the last complete hour, against an even flight: more than 5 % off is behind or ahead. "
      + "The range above does not matter here."),
    table("Bookings", [
      { head: "Campaign", of: (r) => el("span", {}, r.campaign_id, el("small", { class: "why" }, [r.line_item_id, METRICS[r.metric] ?? `spend, ${r.currency}`].filter(Boolean).join(", "))) },
      { head: "Stands", of: (r) => el("span", { class: `pace ${STANDS[judged(r)].class}` }, `${STANDS[judged(r)].sign} ${judged(r)}`) },
      { head: "Pace", of: (r) => percent(r.pace), number: true, note: "delivered / due by now" },
      { head: "Progress", of: bar },
      { head: "Delivered", of: (r) => el("span", {}, amount(r, r.delivered), r.delivered_provisional
        ? el("small", { class: "why" }, `+ ${amount(r, r.delivered_provisional)} in open hours`) : null), number: true },
      { head: "Due by now", of: (r) => amount(r, r.expected), number: true },
      { head: "Goal", of: (r) => amount(r, r.goal), number: true },
      { head: "Needed a day", of: (r) => (r.needed_per_day === null ? NOTHING : amount(r, r.needed_per_day)), number: true },
      { head: "Flight (UTC)", of: (r) => `${day(r.starts_at)} – ${day(r.ends_at)}` },
    ], sorted));
}

// Delivered of the goal, with a mark where it should be by now.
function bar(row) {
  const share = (n) => `${Math.min(100, row.goal > 0 ? (100 * n) / row.goal : 0)}%`;
  const done = el("span", { class: `done ${STANDS[judged(row)].class}` });
  const due = el("span", { class: "due" });
  done.style.width = share(row.delivered);
  due.style.left = share(row.expected);
  const text = `${percent(row.goal > 0 ? row.delivered / row.goal : null)} of the goal`;
  return el("span", { class: "bar", role: "img", "aria-label": text, title: text }, done, due);
}
