// Conversions and their value by campaign, the models side by side.

import { el, note, section, table } from "./dom.js";
import { NOTHING, parts } from "./format.js";
import { status, worst } from "./stated.js";

const MODELS = {
  last_touch: "Last touch", first_touch: "First touch", linear: "Linear", time_decay: "Time decay", position_based: "Position based",
};

// rows: sums by model and campaign_id, one a currency.
export function attribution(rows) {
  if (!rows.length) return section("Attribution", "attribution", note("No conversion in this range."));
  const given = new Set(rows.map((row) => row.model));
  const models = [...new Set([...Object.keys(MODELS), ...given])].filter((model) => given.has(model));
  const name = (model) => MODELS[model] ?? model;
  const standing = worst(rows);
  const byModel = (of) => models.map((model) => ({ head: name(model), of: (line) => of(line.rows.filter((row) => row.model === model)), number: true }));
  const campaign = { head: "Campaign", of: (l) => l.campaign ?? "No touch" };
  const valued = rows.filter((row) => row.value_micros !== 0);
  return section("Attribution", "attribution",
    note(models.length === 1
      ? `One model is in force: ${name(models[0]).toLowerCase()}. A policy can name several, which then stand side by side here.`
      : "The same conversions by each model: they share them out differently."),
    el("p", {}, "These figures are ", status(standing.status, standing.restated_because), "."),
    table("Conversions", [campaign, ...byModel((of) => (of.length ? parts(conversions(of)) : NOTHING))], lines(rows, (row) => [row.campaign_id]), lines(rows, () => ["All"])),
    table("Value", [campaign, { head: "Currency", of: (l) => l.currency ?? "none given" },
        ...byModel((of) => (of.length ? parts(of.reduce((sum, row) => sum + row.value_micros, 0) / 1e6) : NOTHING))],
      lines(valued, (row) => [row.campaign_id, row.currency]), lines(valued, (row) => ["All", row.currency])),
    note("“No touch” is what was converted with nothing seen or clicked within the lookback. Shown in full, as ad sales may see it. Exports tell figures of fewer than ten conversions together with others."));
}

const conversions = (rows) => rows.reduce((sum, row) => sum + Number(row.conversions), 0);

// One line for each of what `by` tells, the most conversions first, what no touch earned last.
function lines(rows, by) {
  const made = [...Map.groupBy(rows, (row) => JSON.stringify(by(row)))].map(([key, each]) => {
    const [campaign, currency] = JSON.parse(key);
    return { campaign, currency, rows: each, most: conversions(each) };
  });
  const currency = (line) => line.currency ?? "";
  return made.sort((a, b) => currency(a).localeCompare(currency(b)) || (a.campaign === null) - (b.campaign === null) || b.most - a.most);
}
