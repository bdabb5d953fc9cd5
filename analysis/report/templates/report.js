"use strict";
(() => {
  const root = document.documentElement;
  const toggle = document.getElementById("theme");
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    const shown = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = shown === "dark" ? "light" : "dark";
  });

  const compare = (a, b, numbers) => {
    if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1; // what is not known stands last
    return numbers ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true });
  };

  const sort = (table, place, heading) => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    const numbers = heading.classList.contains("number");
    const rows = [...table.tBodies[0].rows];
    const value = (row) => row.cells[place].dataset.value;
    rows.sort((a, b) => {
      const unknown = value(a) === "" || value(b) === "";
      const order = compare(value(a), value(b), numbers);
      return down && !unknown ? -order : order;
    });
    table.tBodies[0].append(...rows);
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  };

  for (const table of document.querySelectorAll("table")) {
    [...table.tHead.rows[0].cells].forEach((heading, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      heading.replaceChildren(button);
      button.addEventListener("click", () => sort(table, place, heading));
    });
  }
})();
