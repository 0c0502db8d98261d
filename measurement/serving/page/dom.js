// Elements without markup in strings: what comes from the tables is only ever text.

export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

// columns: {head, of(row), number?, note?}; what `of` gives is text or an element. The first column heads its row. The roles are those
// that the elements have, said again since on a phone each row is laid out as a card, and what is no table to the eye is none to a reader.
export function table(caption, columns, rows, foot = [], kind = "") {
  const cell = (column, content, i) =>
    el(i ? "td" : "th", { scope: i ? null : "row", role: i ? "cell" : "rowheader", class: column.number ? "number" : null, "data-head": column.head }, content);
  const head = columns.map((c) => el("th", { scope: "col", role: "columnheader", class: c.number ? "number" : null, title: c.note }, c.head));
  const line = (row) => el("tr", { role: "row" }, columns.map((c, i) => cell(c, c.of(row), i)));
  const group = (name, ...lines) => el(name, { role: "rowgroup" }, ...lines);
  return el("div", { class: `scroll ${kind}`, tabindex: "0", role: "region", "aria-label": caption },
    el("table", { role: "table" }, el("caption", {}, caption), group("thead", el("tr", { role: "row" }, head)), group("tbody", rows.map(line)),
      foot.length ? group("tfoot", foot.map(line)) : null));
}

export function section(title, id, ...children) {
  return el("section", { "aria-labelledby": id }, el("h2", { id }, title), ...children);
}

export const note = (text) => el("p", { class: "note" }, text);
export const wrong = (text) => el("p", { class: "note wrong", role: "alert" }, text);
