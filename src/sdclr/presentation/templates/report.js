"use strict";
// Sorts the tables of a report by the column that was clicked. Without it they are as they were written.
(() => {
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const text = (cell?.dataset.value ?? cell?.textContent ?? "").trim();
    const number = Number(text.replaceAll(",", "").replace(/\s*%$/, ""));
    return text !== "" && !Number.isNaN(number) ? number : text;
  };

  // what is not known comes last in both directions
  const isUnknown = (value) => value === "" || value === "-" || value === "nan";

  function compare(a, b, sign) {
    if (isUnknown(a) || isUnknown(b)) return isUnknown(a) - isUnknown(b);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function sort(table, column, header) {
    const wasRising = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", wasRising ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    const keyed = rows.map((row) => [valueOf(row, column), row]);
    keyed.sort((a, b) => compare(a[0], b[0], wasRising ? -1 : 1));
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, column, header));
      header.append(button);
    });
  }
  document.documentElement.dataset.ready = "";
})();
