// Numbers and times as people read them. Times are RFC 3339 texts of UTC, as the API has them.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const PARTS = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const PERCENT = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const HOUR = 3_600_000;
export const DAY = 24 * HOUR;
export const NOTHING = "–";

export const count = (n) => WHOLE.format(n);
export const parts = (n) => PARTS.format(n);
export const ratio = (part, whole) => (whole > 0 ? PERCENT.format(part / whole) : NOTHING);
export const percent = (share) => (share === null ? NOTHING : PERCENT.format(share));
export const instant = (text) => Date.parse(text);
export const rfc3339 = (millis) => new Date(millis).toISOString().replace(".000Z", "Z");
export const hour = (text) => (text === null ? NOTHING : `${text.slice(0, 10)} ${text.slice(11, 16)}`);
export const day = (text) => (text.slice(11, 16) === "00:00" ? text.slice(0, 10) : hour(text)); // and the hour where it is not midnight
export const minute = (text) => (text === null ? NOTHING : `${text.slice(0, 10)} ${text.slice(11, 19)}`);

// micros: {currency: millionths}. Money of two currencies is never added.
export function money(micros) {
  const each = Object.entries(micros).filter(([, n]) => n !== 0);
  return each.length ? each.map(([currency, n]) => `${parts(n / 1e6)} ${currency}`).join(" + ") : NOTHING;
}

export function span(millis) {
  const minutes = Math.floor(Math.max(0, millis) / 60_000);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${count(Math.floor(minutes / 1440))} days`;
}
