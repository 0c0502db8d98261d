// Buttons that give the shown range as files, each in a zip with its manifest.

import { download, of, Problem } from "./api.js";
import { el, note, section } from "./dom.js";

const FORMATS = { xlsx: "Excel", csv: "CSV", parquet: "Parquet" };

export function exporting(advertiser, range) {
  const what = el("select", { id: "export-table" }, el("option", { value: "delivery" }, "Delivery"), el("option", { value: "attribution" }, "Attribution"));
  const grain = el("select", { id: "export-grain" }, el("option", { value: "hour" }, "by hour"), el("option", { value: "day" }, "by UTC day"));
  const said = el("p", { role: "status" });
  const button = ([format, name]) => el("button", { type: "button", onclick: () => give(format) }, name);

  async function give(format) {
    said.className = "";
    said.textContent = "The file is being made …";
    try {
      const name = await download(of(advertiser, "exports"), { ...range, table: what.value, grain: grain.value, format });
      said.textContent = `${name} was saved: the rows, and a manifest that says of what, as of when, and their checksum.`;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      said.className = "note wrong";
      said.textContent = error.message;
    }
  }

  return section("Export", "export", el("p", { class: "form" }, el("label", { for: "export-table" }, "Table "), what, el("label", { for: "export-grain" }, "Rows "), grain,
    Object.entries(FORMATS).map(button)), said,
  note("The range above, and its campaign if one is chosen. Figures that derive from fewer than ten conversions are told together with others."));
}
