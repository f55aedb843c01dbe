// Shared by all parts of the page: data, elements, colours, selection of cells.

const $ = (id) => document.getElementById(id);

// Create an element; children are nodes or text, never markup.
function el(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

// Decode a data block of the page (base64 of gzip).
async function inflated(id) {
  const block = $(id);
  if (!block) return null;
  const letters = atob(block.textContent);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const kept = new Map();
async function data(id) {
  if (!kept.has(id)) kept.set(id, inflated(id).then((text) => (text === null ? null : JSON.parse(text))));
  return kept.get(id);
}

let page; // the block "state"
const chosen = { text: "", group: "", library: "", verdict: "", status: "" };

// The cells of the charts, of one corpus and device.
const group = () => page.groups[Number(chosen.group) || 0];

function passes(id) {
  const cell = page.cells[id];
  const words = `${cell.label} ${cell.name} ${cell.library} ${cell.verdict || ""} ${cell.status}`.toLowerCase();
  return (
    words.includes(chosen.text.toLowerCase()) &&
    (!chosen.group || group().cells.includes(id)) &&
    ["library", "verdict", "status"].every((key) => !chosen[key] || String(cell[key]) === chosen[key])
  );
}

// Escape a text, as Plotly interprets some markup in its texts.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const percent = (fraction, digits = 2) => (100 * fraction).toFixed(digits);
const signed = (points) => `${points < 0 ? "−" : points > 0 ? "+" : ""}${Math.abs(points).toFixed(2)}`;
const bytes = (count) => (count >= 1e5 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e3).toFixed(1)} kB`);

// Colours come from the style sheet; the browser resolves them for the current theme.
const probe = el("span", { hidden: true });
function colour(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "pentagon", "hexagram", "cross"];
function look(library) {
  if (library === "none") return { colour: colour("ink"), symbol: "circle-open" };
  const index = page.libraries.filter((name) => name !== "none").indexOf(library) % SYMBOLS.length;
  return { colour: colour(`library-${index}`), symbol: SYMBOLS[index] };
}
const VERDICT_LOOK = {
  better: ["good", "triangle-up", "▲"],
  tied: ["good", "circle", "="],
  underpowered: ["warn", "circle-open", "?"],
  worse: ["bad", "triangle-down", "▼"],
};

function verdictBadge(word) {
  const sign = { baseline: "◆", reference: "◆" }[word] || VERDICT_LOOK[word][2];
  return el("span", { class: `badge ${word}` }, `${sign} ${word}`);
}

function hoverText(id, more = []) {
  const cell = page.cells[id];
  const lines = [...cell.facts, ...more].map(([name, value]) => `${plain(name)}: ${plain(value)}`);
  const verdict = cell.verdict ? ` — ${cell.verdict}` : "";
  return [`<b>${plain(cell.label)}</b>${verdict}`, ...lines].join("<br>");
}

// Options shared by all charts.
function layout(more) {
  const axis = { gridcolor: colour("line"), zeroline: false, linecolor: colour("line"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("ink"), family: getComputedStyle(document.body).fontFamily, size: 13 },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("accent"), font: { color: colour("ink") }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("soft"), activecolor: colour("accent") },
    hovermode: "closest",
    dragmode: touch ? false : "zoom", // a finger scrolls the page
    showlegend: false,
    ...more,
    xaxis: { ...axis, ...more.xaxis },
    yaxis: { ...axis, ...more.yaxis },
  };
}
const touch = matchMedia("(pointer: coarse)").matches;
const CONFIG = {
  displaylogo: false,
  responsive: true,
  displayModeBar: touch ? false : "hover",
  modeBarButtons: [["toImage", "pan2d", "zoom2d", "resetScale2d"]],
};

async function draw(id, traces, more) {
  const chart = $(id);
  if (more.height) chart.style.height = chart.style.minHeight = `${more.height}px`; // no blank space below few cells
  await Plotly.react(chart, traces, layout(more), CONFIG);
  if (!chart.dataset.listens) {
    chart.dataset.listens = "yes";
    chart.on("plotly_click", (event) => {
      const found = event.points.find((point) => point.customdata);
      if (found) location.hash = `cell=${found.customdata[0]}`;
    });
  }
}

// Radio buttons; nothing if there is only one choice.
function radios(box, name, options, value, onchange) {
  for (const [key, text] of options) {
    const input = el("input", { type: "radio", name, value: key, checked: key === value });
    input.addEventListener("change", () => onchange(key));
    box.append(el("label", {}, input, ` ${text}`));
  }
  box.hidden = options.length < 2;
}
