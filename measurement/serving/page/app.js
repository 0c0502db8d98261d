// Which view the address names, who is signed in, and how fresh what is shown is. An address is #/ (all advertisers) or
// #/a/ADVERTISER?from=…&to=…&campaign=…, so that a view can be kept and sent on; the key is never in it.

import { advertiser } from "./advertiser.js";
import { advertisers } from "./advertisers.js";
import { keyOfAddress, Problem, signedIn, signIn, signOut } from "./api.js";
import { el, wrong } from "./dom.js";
import { hour, instant, minute, NOTHING, span } from "./format.js";

const main = document.getElementById("main");
const freshness = document.getElementById("freshness");
const buttons = [document.getElementById("refresh"), document.getElementById("sign-out")];
const STALE = 80 * 60_000; // the service level of freshness
let under = null;

// told: an answer's {as_of, complete_until}
function fresh(told) {
  if (!told.complete_until) {
    freshness.className = "stale";
    freshness.textContent = "No hour is complete yet: all figures are provisional.";
    return;
  }
  const behind = Date.now() - instant(told.complete_until);
  freshness.className = behind > STALE ? "stale" : "fresh";
  freshness.replaceChildren(
    el("strong", {}, `${behind > STALE ? "▲" : "✓"} Hours complete until ${hour(told.complete_until)} UTC`),
    ` (${span(behind)} ago). Newest figures here: ${told.as_of ? `${minute(told.as_of)} UTC` : NOTHING}.`);
}

async function show(focus = true) {
  under?.abort();
  const mine = (under = new AbortController());
  for (const button of buttons) button.hidden = !signedIn();
  if (!signedIn()) {
    freshness.replaceChildren();
    main.replaceChildren(door());
    return;
  }
  const path = /^#\/a\/([^?]+)(?:\?(.*))?$/.exec(location.hash);
  main.setAttribute("aria-busy", "true");
  try {
    const view = path
      ? await advertiser(decodeURIComponent(path[1]), new URLSearchParams(path[2] ?? ""), fresh, mine.signal)
      : await advertisers(fresh, mine.signal);
    if (mine.signal.aborted) return;
    document.title = `${view.title} · ad-measurement`;
    main.replaceChildren(...view.parts);
    view.shown?.();
    if (focus) main.focus({ preventScroll: false });
  } catch (error) {
    if (mine.signal.aborted) return;
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) {
      signOut();
      for (const button of buttons) button.hidden = true;
      freshness.replaceChildren();
      main.replaceChildren(door("This key is not, or no longer, valid."));
      return;
    }
    freshness.replaceChildren();
    main.replaceChildren(el("h1", {}, path ? decodeURIComponent(path[1]) : "Advertisers"), wrong(error.message),
      el("p", {}, el("a", { href: "#/" }, "All advertisers")));
  } finally {
    if (under === mine) main.removeAttribute("aria-busy");
  }
}

function door(why = null) {
  document.title = "Sign in · ad-measurement";
  const field = el("input", { type: "password", id: "key", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "about-key" });
  const enter = (event) => {
    event.preventDefault();
    signIn(field.value);
    show();
  };
  return el("form", { class: "door", onsubmit: enter }, el("h1", {}, "Sign in"), why && wrong(why),
    el("label", { for: "key" }, "Key of sales"), field, el("button", { type: "submit" }, "Open"),
    el("p", { class: "note", id: "about-key" }, "It is made by ", el("code", {}, "measurement keys make --sales"),
      " and kept in this tab until it is closed."));
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the view's
  main.focus();
});
document.getElementById("refresh").addEventListener("click", () => show(false));
document.getElementById("sign-out").addEventListener("click", () => {
  signOut();
  show();
});
addEventListener("hashchange", () => {
  keyOfAddress();
  show();
});
keyOfAddress();
show(false);
