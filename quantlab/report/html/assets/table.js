// The table of all cells: sorting by a click on a heading, and the filter shared with the charts.

function readyTable() {
  const heads = [...$("cells").tHead.rows[0].cells];
  heads.forEach((head, index) => head.querySelector("button").addEventListener("click", () => sortBy(heads, index)));
}

// Ascending, then descending; missing values stay last.
function sortBy(heads, index) {
  const down = heads[index].getAttribute("aria-sort") === "ascending";
  heads.forEach((head, other) => head.setAttribute("aria-sort", other !== index ? "none" : down ? "descending" : "ascending"));
  const body = $("cells").tBodies[0];
  const key = (row) => row.cells[index].dataset.v;
  const number = heads[index].classList.contains("w") ? () => NaN : Number;
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    const order = Number.isNaN(number(x)) ? x.localeCompare(y, undefined, { numeric: true }) : number(x) - number(y);
    return down ? -order : order;
  };
  body.append(...[...body.rows].sort(compare));
}

function filterTable() {
  const rows = [...$("cells").tBodies[0].rows];
  for (const row of rows) row.hidden = !passes(row.dataset.cell);
  const left = rows.filter((row) => !row.hidden).length;
  const all = plural(rows.length, "cell");
  const count = left === rows.length ? all : `${left} of ${all}`;
  $("count").textContent = page.groups.length > 1 ? `${count}; charts: ${group().label}` : count;
  for (const part of document.querySelectorAll("[data-short]")) part.hidden = page.groups[part.dataset.short] !== group();
  $("f-clear").hidden = left === rows.length;
}

// `changed` is called after each selection.
function readyFilters(changed) {
  for (const name of Object.keys(chosen)) {
    const field = $(`f-${name}`);
    if (field) field.addEventListener("input", () => { chosen[name] = field.value; filterTable(); changed(name); });
  }
  $("f-clear").addEventListener("click", () => {
    for (const name of Object.keys(chosen)) {
      chosen[name] = "";
      if ($(`f-${name}`)) $(`f-${name}`).value = "";
    }
    filterTable();
    changed("all");
  });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").hidden = false;
  for (const hint of document.querySelectorAll(".script-only")) hint.hidden = false;
  filterTable();
}
