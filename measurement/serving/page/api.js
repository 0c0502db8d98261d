// The report API, asked with the key of this tab.

const KEPT = "measurement.key";
let held = sessionStorage.getItem(KEPT);

export const signedIn = () => held !== null;

export function signIn(key) {
  held = key.trim();
  sessionStorage.setItem(KEPT, held);
}

export function signOut() {
  held = null;
  sessionStorage.removeItem(KEPT);
}

// A key in the fragment (a link that `measurement demo` prints) reaches no server; it leaves the address and the history at once.
export function keyOfAddress() {
  const found = /^#key=([\w-]+)$/.exec(location.hash);
  if (!found) return;
  signIn(found[1]);
  history.replaceState(null, "", "#/");
}

export class Problem extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function answer(path, parameters, signal) {
  const asked = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  let got;
  try {
    got = await fetch(`/v1/${path}${asked.size ? `?${asked}` : ""}`, { headers: { Authorization: `Bearer ${held}` }, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server cannot be reached.");
  }
  if (got.ok) return got;
  const told = await got.json().catch(() => ({}));
  const each = (told.errors ?? []).map((e) => `${e.parameter} ${e.detail}`).join("; ");
  const retry = got.headers.get("Retry-After");
  throw new Problem(got.status, [told.detail ?? `The server answers ${got.status}.`, each, retry && `Try again in ${retry} s.`]
    .filter(Boolean).join(" "));
}

export const of = (advertiser, what) => `advertisers/${encodeURIComponent(advertiser)}/${what}`;

export async function read(path, parameters = {}, signal = undefined) {
  return (await answer(path, parameters, signal)).json();
}

// All pages of a list.
export async function readAll(path, rows, signal) {
  const all = await read(path, {}, signal);
  for (let next = all.next; next; ) {
    const page = await read(path, { cursor: next }, signal);
    all[rows].push(...page[rows]);
    next = page.next;
  }
  return all;
}

export async function download(path, parameters) {
  const got = await answer(path, parameters);
  const name = /filename="([^"]+)"/.exec(got.headers.get("Content-Disposition") ?? "")?.[1] ?? "export.zip";
  const url = URL.createObjectURL(await got.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
  return name;
}
