// What is in gross and not in net, by reason, and what each reason means.

import { el, note, section, table } from "./dom.js";
import { count, NOTHING, ratio } from "./format.js";

const REASONS = {
  robot: ["Declared robots", "The user agent is that of a known bot, spider or crawler."],
  datacentre: ["Data centres", "The address belongs to a data centre, where no people sit."],
  listed: ["Listed networks", "The address is on another list of known invalid sources, such as proxies."],
  rate: ["More than a person does", "One user or address had more events in an hour than the policy allows; all of that hour are invalid."],
};
const TYPES = { impression: "Impressions", click: "Clicks", conversion: "Conversions" };

// rows: sums by reason and event_type; gross, net: impressions of the same range.
export function invalid(rows, gross, net) {
  const said = gross
    ? `${count(gross - net)} of ${count(gross)} gross impressions (${ratio(gross - net, gross)}) were left out of net and are not billed.`
    : "No impression in this range.";
  const about = note(`${said} This is general invalid traffic (GIVT) by the MRC's guideline: found by lists and by routine rules. `
    + "What follows an invalid impression is invalid with it.");
  if (!rows.length) return section("Invalid traffic", "invalid", about, note("No invalid traffic was found in this range."));
  const lines = [...Map.groupBy(rows, (row) => row.reason)].map(([reason, each]) => {
    const events = (wanted) => each.filter(wanted).reduce((sum, row) => sum + row.events, 0);
    return { reason, by: Object.fromEntries(Object.keys(TYPES).map((type) => [type, events((row) => row.event_type === type)])),
      others: events((row) => !(row.event_type in TYPES)) };
  }).sort((a, b) => b.by.impression - a.by.impression);
  return section("Invalid traffic", "invalid", about, table("Events left out, by reason", [
    { head: "Reason", of: (l) => el("span", {}, REASONS[l.reason]?.[0] ?? l.reason, el("small", { class: "why" }, REASONS[l.reason]?.[1] ?? "")) },
    ...Object.entries(TYPES).map(([type, head]) => ({ head, of: (l) => (l.by[type] ? count(l.by[type]) : NOTHING), number: true })),
    { head: "Viewability and quartiles", of: (l) => (l.others ? count(l.others) : NOTHING), number: true },
    { head: "Of gross impressions", of: (l) => ratio(l.by.impression, gross), number: true },
  ], lines));
}
