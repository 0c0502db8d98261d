// What rows state of themselves: provisional, final or restated, and why. A sign, a word and a colour, never the colour alone.

import { el } from "./dom.js";

export const STATUSES = ["final", "restated", "provisional"]; // the worst last
const SIGNS = { provisional: "◌", final: "●", restated: "↻" };
const REASONS = {
  late: "late events", invalid_traffic: "found invalid later", order: "an earlier conversion of the order", rebuild: "counted anew",
  policy: "another policy", erasure: "erased on request",
};

// because: reasons with commas, or null, as the API has them.
export function status(of, because = null) {
  const reasons = because?.split(",").map((reason) => REASONS[reason] ?? reason).join(", ");
  return el("span", { class: `status ${of}` }, `${SIGNS[of]} ${of}`, reasons && el("small", {}, ` ${reasons}`));
}

// Of several rows: the worst status, and all reasons.
export function worst(rows) {
  return {
    status: STATUSES[Math.max(...rows.map((row) => STATUSES.indexOf(row.status)))],
    restated_because: [...new Set(rows.flatMap((row) => row.restated_because?.split(",") ?? []))].sort().join(",") || null,
  };
}
