// Delivery by hour: a chart in which provisional, final and restated hours differ by pattern as well as by colour, and a table.

import { bars } from "./chart.js";
import { el, note, section, table } from "./dom.js";
import { count, HOUR, hour, instant, money, NOTHING, ratio } from "./format.js";
import { status, STATUSES, worst } from "./stated.js";

const METRICS = {
  impressions: "Impressions, net", gross_impressions: "Impressions, gross", viewable_impressions: "Viewable impressions", clicks: "Clicks",
  starts: "Video starts", completes: "Completed plays",
};

// Rows of an hour, status and currency, made one an hour: {window_start, status, restated_because, spend: {currency: micros}, numbers…}, with
// `parts`, by status the figures of the rows that have it.
export function byHour(rows) {
  return [...Map.groupBy(rows, (row) => row.window_start)].map(([start, each]) => {
    const made = { window_start: start, spend: spend(each), ...summed(each), ...worst(each), parts: {} };
    for (const [name, some] of Map.groupBy(each, (row) => row.status)) made.parts[name] = summed(some);
    return made;
  });
}

const SUMMED = [...Object.keys(METRICS), "measurable_impressions", "hourly_rows", "restated_rows", "provisional_rows"];

export const summed = (rows) => Object.fromEntries(SUMMED.map((name) => [name, rows.reduce((sum, row) => sum + row[name], 0)]));

export function spend(rows) {
  const by = {};
  for (const row of rows) by[row.currency ?? "(no currency)"] = (by[row.currency ?? "(no currency)"] ?? 0) + row.spend_micros;
  return by;
}

// from, to: milliseconds. Returns the section and what draws the chart once it is on the page.
export function hours(rows, from, to, completeUntil) {
  const until = completeUntil === null ? from : instant(completeUntil);
  const found = new Map(byHour(rows).map((row) => [instant(row.window_start), row]));
  const all = [];
  for (let at = from; at < to; at += HOUR) all.push({ at, row: found.get(at) ?? null, open: at + HOUR > until });
  const seen = (name) => all.filter((h) => h.row?.status === name).length;
  const empty = all.filter((h) => !h.row && !h.open).length;
  const open = all.filter((h) => !h.row && h.open).length;
  const told = STATUSES.map((name) => `${count(seen(name))} ${name}`);
  if (empty) told.push(`${count(empty)} complete with nothing delivered`);
  if (open) told.push(`${count(open)} not complete, nothing counted so far`);
  const summary = `${count(all.length)} hours: ${told.join(", ")}.`;

  const place = el("div", { class: "chart", role: "img", "aria-label": `Chart of delivery by hour. ${summary} The table below has the figures.` });
  const readout = el("p", { class: "readout", "aria-hidden": "true" });
  const choice = el("select", { id: "metric", onchange: () => draw() },
    Object.entries(METRICS).map(([name, text]) => el("option", { value: name }, text)));
  const point = (h) => readout.replaceChildren(h ? reading(h, choice.value) : "Point at an hour to read it.");
  let end = () => {};
  const draw = () => {
    end();
    point(null);
    end = bars(place, all, choice.value, until, to, point);
  };

  return {
    part: section("Delivery by hour", "delivery", el("p", { class: "legend" }, STATUSES.map((name) => el("span", { class: `key ${name}` }, status(name))),
      el("span", { class: "quiet" }, "A bar is split by the status of its rows.")),
      el("p", {}, el("label", { for: "metric" }, "Figure "), choice, ` ${summary}`), place, readout,
      rows.length ? null : note(completeUntil !== null && to <= until ? "Nothing was delivered in this range; its hours are complete."
        : "Nothing has been counted in this range so far; not all of its hours are complete."),
      el("details", {}, el("summary", {}, "Table of the hours"), table("Hours, the latest first", [
        { head: "Hour (UTC)", of: (h) => hour(new Date(h.at).toISOString()) },
        { head: "Status", of: (h) => (h.row ? status(h.row.status, h.row.restated_because) : el("span", { class: "quiet" }, nothing(h))) },
        { head: "Rows restated", of: (h) => (h.row ? `${count(h.row.restated_rows)} of ${count(h.row.hourly_rows)}` : NOTHING), number: true },
        ...figures((h) => h.row),
      ], all.toReversed(), [], "tall"))),
    shown: draw,
  };
}

// Columns of delivery's figures, of rows as byHour makes them.
export function figures(row) {
  const figure = (make) => (of) => (row(of) ? make(row(of)) : NOTHING);
  return [
    { head: "Impressions", of: figure((r) => count(r.impressions)), number: true, note: "net of invalid traffic" },
    { head: "Gross", of: figure((r) => count(r.gross_impressions)), number: true, note: "invalid traffic included" },
    { head: "Viewable", of: figure((r) => count(r.viewable_impressions)), number: true },
    { head: "Viewable rate", of: figure((r) => ratio(r.viewable_impressions, r.measurable_impressions)), number: true, note: "of measurable impressions" },
    { head: "Clicks", of: figure((r) => count(r.clicks)), number: true },
    { head: "Click rate", of: figure((r) => ratio(r.clicks, r.impressions)), number: true },
    { head: "Completed", of: figure((r) => ratio(r.completes, r.starts)), number: true, note: "of started plays" },
    { head: "Spend", of: figure((r) => money(r.spend)), number: true },
  ];
}

const nothing = (h) => (h.open ? "not complete, nothing counted so far" : "complete, nothing delivered");

function reading(h, metric) {
  const at = hour(new Date(h.at).toISOString());
  if (!h.row) return `${at} UTC: ${nothing(h)}`;
  const moved = h.row.parts.restated?.[metric];
  return el("span", {}, `${at} UTC: ${count(h.row[metric])} `, status(h.row.status, h.row.restated_because), moved ? ` ${count(moved)} of them in restated rows` : null);
}
