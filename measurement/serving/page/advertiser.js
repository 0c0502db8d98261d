// One advertiser: totals, pacing, delivery by hour and campaign, attribution, invalid traffic, exports.

import { attribution } from "./attribution.js";
import { of, Problem, read, readAll } from "./api.js";
import { el, section, table, wrong } from "./dom.js";
import { exporting } from "./exports.js";
import { count, instant, money, ratio, rfc3339 } from "./format.js";
import { byHour, figures, hours, spend, summed } from "./hours.js";
import { invalid } from "./invalid.js";
import { pacing } from "./pace.js";
import { address, rangeOf, ranging } from "./range.js";
import { status } from "./stated.js";

export async function advertiser(id, asked, fresh, signal) {
  const all = await readAll("advertisers", "advertisers", signal);
  fresh(all);
  const newest = all.advertisers.find((a) => a.advertiser_id === id)?.newest_hour;
  if (!newest) throw new Problem(404, "Nothing has been counted for an advertiser of this id.");
  const campaign = asked.get("campaign");
  const range = rangeOf(asked, instant(newest));
  const head = [el("nav", { "aria-label": "You are here" }, el("a", { href: "#/" }, "All advertisers")), el("h1", {}, id), ranging(id, range, campaign)];
  if (range.why) return { title: id, parts: head };

  const between = { from: rfc3339(range.from), to: rfc3339(range.to) };
  const narrowed = { ...between, campaign_id: campaign };
  const sums = (what, by, parameters) => read(of(id, `${what}/sums`), { ...parameters, by }, signal);
  const [byTime, byCampaign, byModel, byReason, booked] = await Promise.all([
    sums("delivery", "window_start,status", narrowed), sums("delivery", "campaign_id", between), sums("attribution", "model,campaign_id", narrowed),
    sums("invalid_traffic", "reason,event_type", narrowed), read(of(id, "pacing"), {}, signal),
  ].map(kept));
  const whole = [byTime, byCampaign].find((found) => !(found instanceof Problem));
  if (whole) fresh({ as_of: whole.as_of, complete_until: all.complete_until });

  const total = byTime instanceof Problem ? null : { spend: spend(byTime.rows), ...summed(byTime.rows) };
  const chart = part("Delivery by hour", byTime, (found) => hours(found.rows, range.from, range.to, found.complete_until));
  const mine = (rows) => (campaign ? rows.filter((row) => row.campaign_id === campaign) : rows);
  return {
    title: id,
    parts: [...head, total && tiles(total), part("Pacing", booked, (found) => pacing(mine(found.rows))), chart.part ?? chart,
      part("Campaigns", byCampaign, (found) => campaigns(id, found.rows, range)), part("Attribution", byModel, (found) => attribution(found.rows)),
      part("Invalid traffic", byReason, (found) => invalid(found.rows, total?.gross_impressions ?? 0, total?.impressions ?? 0)),
      exporting(id, narrowed)].filter(Boolean),
    shown: chart.shown,
  };
}

// What one part cannot show does not keep the others away; an invalid key or an unknown advertiser does.
const kept = (asked) => asked.catch((error) => {
  if (error instanceof Problem && ![401, 404].includes(error.status)) return error;
  throw error;
});

const part = (title, found, make) => (found instanceof Problem ? section(title, `no-${title.toLowerCase().replaceAll(" ", "-")}`, wrong(found.message)) : make(found));

function tiles(t) {
  const tile = (name, value, more) => el("div", {}, el("dt", {}, name), el("dd", {}, value, more && el("small", {}, ` ${more}`)));
  return el("dl", { class: "tiles", "aria-label": "Totals of the range" },
    tile("Impressions, net", count(t.impressions), `of ${count(t.gross_impressions)} gross`),
    tile("Viewable", count(t.viewable_impressions), `${ratio(t.viewable_impressions, t.measurable_impressions)} of measurable`),
    tile("Clicks", count(t.clicks), ratio(t.clicks, t.impressions)),
    tile("Completed plays", count(t.completes), `${ratio(t.completes, t.starts)} of started`),
    tile("Spend", money(t.spend)));
}

function campaigns(id, rows, range) {
  const lines = [...Map.groupBy(rows, (row) => row.campaign_id)].map(([campaign, each]) => ({ ...byHour(each.map((row) => ({ ...row, window_start: "" })))[0], campaign }))
    .sort((a, b) => b.impressions - a.impressions);
  return section("Campaigns", "campaigns", lines.length ? table("Campaigns of the range", [
    { head: "Campaign", of: (l) => (l.campaign === null ? "(none)" : el("a", { href: address(id, range.from, range.to, l.campaign) }, l.campaign)) },
    { head: "Status", of: (l) => status(l.status, l.restated_because) },
    ...figures((l) => l),
  ], lines) : el("p", { class: "note" }, "No campaign delivered anything in this range."));
}
