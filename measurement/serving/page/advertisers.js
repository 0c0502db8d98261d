// All advertisers: how new their figures are, and how their bookings stand.

import { read, readAll, Problem } from "./api.js";
import { el, note, table, wrong } from "./dom.js";
import { count, hour, NOTHING } from "./format.js";
import { judged, STANDS } from "./pace.js";

export async function advertisers(fresh, signal) {
  const [all, booked] = await Promise.all([
    readAll("advertisers", "advertisers", signal),
    read("pacing", {}, signal).catch((error) => {
      if (error instanceof Problem && error.status !== 401) return error;
      throw error;
    })]);
  fresh(all);
  const bookings = Map.groupBy(booked instanceof Problem ? [] : booked.rows, (row) => row.advertiser_id);
  const list = el("div", {});
  const filter = el("input", { type: "search", id: "filter", autocomplete: "off", spellcheck: "false", oninput: () => fill(filter.value) });

  function fill(wanted) {
    const shown = all.advertisers.filter((a) => a.advertiser_id.toLowerCase().includes(wanted.trim().toLowerCase()));
    const many = shown.length === all.advertisers.length ? "" : ` of ${count(all.advertisers.length)}`;
    list.replaceChildren(shown.length
      ? table(`${count(shown.length)}${many} advertisers`, [
        { head: "Advertiser", of: (a) => el("a", { href: `#/a/${encodeURIComponent(a.advertiser_id)}` }, a.advertiser_id) },
        { head: "Bookings", of: (a) => stands(bookings.get(a.advertiser_id)) },
        { head: "Newest hour (UTC)", of: (a) => hour(a.newest_hour) },
        { head: "Published (UTC)", of: (a) => hour(a.published_at) },
      ], shown)
      : note(all.advertisers.length ? `No advertiser's id has “${wanted.trim()}” in it.` : "Nothing has been counted yet."));
  }

  fill("");
  return {
    title: "Advertisers",
    parts: [el("h1", {}, "Advertisers"),
      booked instanceof Problem && wrong(`How bookings stand cannot be told: ${booked.message}`),
      el("p", {}, el("label", { for: "filter" }, "Filter by id "), filter), list].filter(Boolean),
  };
}

// How many of the bookings stand how, the worst first.
function stands(rows) {
  if (!rows) return NOTHING;
  const each = Map.groupBy(rows, judged);
  return el("span", {}, Object.entries(STANDS).filter(([name]) => each.has(name))
    .map(([name, of]) => el("span", { class: `pace ${of.class}` }, `${of.sign} ${count(each.get(name).length)} ${name}`)));
}
