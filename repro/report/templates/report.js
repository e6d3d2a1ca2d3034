"use strict";
// Sorts and filters the tables. Without it every row is there, in the order of the report.

const FEW = 6;
const CHOICES = 8;

const textOf = (cell) => {
  const summary = cell.querySelector("summary");
  return (summary || cell).textContent.trim();
};

const numberOf = (cell) => {
  const found = (cell.dataset.value || textOf(cell)).match(/^[<>± ]*([-+]?[\d.]+(?:e[-+]?\d+)?)/i);
  return found ? Number(found[1]) : NaN;
};

const rowsOf = (table) => [...table.tBodies].flatMap((body) =>
  [...body.rows].filter((row) => !row.classList.contains("group")));

const compare = (column, sign) => (one, other) => {
  const texts = [one, other].map((row) => textOf(row.cells[column]));
  if (!texts[0] || !texts[1]) return (texts[0] ? 0 : 1) - (texts[1] ? 0 : 1);
  const numbers = [one, other].map((row) => numberOf(row.cells[column]));
  const difference = numbers.some(Number.isNaN) ? texts[0].localeCompare(texts[1]) : numbers[0] - numbers[1];
  return sign * difference;
};

// Rows of a group stay below its heading.
const sort = (table, column) => {
  const heads = [...table.tHead.rows[0].cells];
  const falling = heads[column].getAttribute("aria-sort") === "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", falling ? "descending" : "ascending");
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    body.append(...rows.sort(compare(column, falling ? -1 : 1)));
  }
};

const make = (name, settings, ...children) => {
  const node = Object.assign(document.createElement(name), settings);
  node.append(...children);
  return node;
};

// A choice for every column of few different words, and a search in all of them.
const filters = (table) => {
  const rows = rowsOf(table);
  const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent);
  const search = make("input", { type: "search", placeholder: "any words" });
  const said = make("span", {});
  said.setAttribute("role", "status");
  const choices = heads.map((head, column) => {
    const words = [...new Set(rows.map((row) => textOf(row.cells[column])))].filter(Boolean);
    const isWords = rows.every((row) => !row.cells[column].dataset.value && Number.isNaN(numberOf(row.cells[column])));
    if (!isWords || words.length < 2 || words.length > CHOICES || 2 * words.length > rows.length) return null;
    const options = ["", ...words].map((word) => make("option", { value: word, textContent: word || "all" }));
    return { column, label: head, select: make("select", {}, ...options) };
  }).filter(Boolean);
  const apply = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(wanted.every((word) => text.includes(word))
        && choices.every(({ column, select }) => !select.value || textOf(row.cells[column]) === select.value));
    }
    for (const body of table.tBodies) {
      const own = [...body.rows].filter((row) => !row.classList.contains("group"));
      body.hidden = own.every((row) => row.hidden);
    }
    const shown = rows.filter((row) => !row.hidden).length;
    said.textContent = shown < rows.length ? `${shown} of ${rows.length} rows` : "";
  };
  search.addEventListener("input", apply);
  choices.forEach(({ select }) => select.addEventListener("change", apply));
  const labels = choices.map(({ label, select }) => make("label", {}, `${label} `, select));
  return make("div", { className: "filters" }, make("label", {}, "Filter ", search), ...labels, said);
};

for (const table of document.querySelectorAll("table")) {
  if (rowsOf(table).length > FEW) table.parentElement.before(filters(table));
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = make("button", { type: "button", title: "Sort by this column" }, ...head.childNodes);
    button.addEventListener("click", () => sort(table, column));
    head.append(button);
  });
}

// A link to a folded run opens what it lies in.
const reveal = () => {
  const target = document.getElementById(location.hash.slice(1));
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", reveal);
if (location.hash) reveal();

// On paper nothing can be unfolded.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details.rule:not([open])")];
  opened.forEach((node) => { node.open = true; });
});
addEventListener("afterprint", () => opened.forEach((node) => { node.open = false; }));
