// Start-up: data, table, then the charts in order.

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  const button = $("theme");
  button.textContent = theme === "dark" ? "☀ Light" : "☾ Dark";
  button.setAttribute("aria-label", `Switch to ${theme === "dark" ? "light" : "dark"} colours`);
  button.hidden = false;
}

function readyTheme(redraw) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let own = null;
  try { own = localStorage.getItem("quantlab-theme"); } catch { /* a file may have no storage */ }
  const theme = () => own || (dark.matches ? "dark" : "light");
  const change = () => { setTheme(theme()); redraw(); };
  setTheme(theme());
  dark.addEventListener("change", change);
  $("theme").addEventListener("click", () => {
    own = theme() === "dark" ? "light" : "dark";
    try { localStorage.setItem("quantlab-theme", own); } catch { /* it is forgotten, then */ }
    change();
  });
  addEventListener("beforeprint", () => { setTheme("light"); redraw(); });
  addEventListener("afterprint", change);
}

async function loadPlotly() {
  window.PlotlyConfig = { MathJaxConfig: "local" };
  document.head.append(el("script", {}, await inflated("plotly")));
}

function readySheet() {
  const sheet = $("sheet");
  const follow = () => {
    const found = /^#cell=(.+)$/.exec(location.hash);
    if (found) openCell(decodeURIComponent(found[1]));
    else if (sheet.open) sheet.close();
  };
  addEventListener("hashchange", follow);
  sheet.addEventListener("close", () => { opened = null; history.replaceState(null, "", location.pathname + location.search); });
  sheet.addEventListener("click", (event) => { if (event.target === sheet) sheet.close(); });
  follow();
}

function readyChoices() {
  const { splits: names, cells } = group();
  const some = (cost) => cells.some((id) => page.cells[id].baseline !== id && page.cells[id].cost[cost]);
  const costs = Object.keys(COSTS).filter(some);
  // On a busy machine a ratio is more stable than times, but it needs a common baseline.
  const timed = cells.filter((id) => page.cells[id].cost.rtf);
  const baselines = new Set(timed.map((id) => page.cells[id].baseline));
  const ratios = baselines.size === 1 && !baselines.has(null) && timed.length > 1 && timed.every((id) => page.cells[id].cost.ratio);
  view.x = ratios ? "ratio" : costs[0] || "rtf";
  view.split = againstSplit = page.pooled;
  const options = [[page.pooled, "all splits"], ...(names.length > 1 ? names.map((split) => [split, split]) : [])];
  for (const id of ["x", "y", "against-split"]) $(id).querySelectorAll("label").forEach((old) => old.remove());
  radios($("x"), "x", costs.map((cost) => [cost, COSTS[cost].name]), view.x, (value) => { view.x = value; scatter(); });
  radios($("y"), "y", options, view.split, (value) => { view.split = value; scatter(); });
  radios($("against-split"), "against", options, againstSplit, (value) => { againstSplit = value; forest(); });
}

let shown = false; // the first chart stands, the others may follow
async function drawAll() {
  if (!shown) return;
  await scatter();
  await forest();
  await splits();
}

// Loading state of the page, for tests and timing.
function reached(stage) {
  performance.mark(stage);
  document.documentElement.dataset.drawn = stage;
}

async function start() {
  readyTheme(drawAll);
  page = await data("state");
  readyTable();
  let waiting = null;
  readyFilters((name) => {
    if (name === "group" || name === "all") readyChoices();
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 120);
  });
  readyChoices();
  $("whole").addEventListener("change", (event) => { view.whole = event.target.checked; scatter(); });
  await loadPlotly();
  await scatter();
  shown = true;
  reached("first-chart");
  readySheet();
  const zoomed = (event) => Object.keys(event).some((key) => /axis\d?\.(range|autorange)/.test(key));
  $("scatter").on?.("plotly_relayout", (event) => { if (zoomed(event)) nameThem(); });
  setTimeout(() => forest().then(splits).then(() => reached("all-charts")));
}

start().catch((error) => {
  $("broken").textContent = `The charts cannot be shown in this browser: ${error.message}. The tables below are complete.`;
  $("broken").hidden = false;
  console.error(error);
});
