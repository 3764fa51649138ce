"""The page's only script: a click on a heading sorts its table. Without it all is there, in the order of rank."""

import base64
import hashlib

# Cells sort by data-sort where they have one, else by their text; numbers before words, empty ones last.
SCRIPT = """
for (const head of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => {
      const cell = row.cells[column], text = cell?.dataset.sort ?? cell?.textContent.trim() ?? "";
      return [text === "", Number.isNaN(Number(text)) ? 1 : 0, Number(text), text];
    };
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x[0] !== y[0]) return x[0] - y[0];
      const way = x[1] - y[1] || (x[1] ? x[3].localeCompare(y[3]) : x[2] - y[2]);
      return down ? -way : way;
    };
    body.append(...[...body.rows].sort(order));
  });
}
"""
# What the page's Content-Security-Policy allows, and nothing else.
SCRIPT_HASH = "sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
