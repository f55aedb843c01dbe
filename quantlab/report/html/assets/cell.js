// Details of one cell: texts (worst regressions first), timing, receipt, configuration, environment.

const AT_ONCE = 40; // utterances
let opened = null;

async function openCell(id) {
  const cell = page.cells[id];
  if (!cell) return;
  opened = id;
  const sheet = $("sheet");
  const close = el("button", { type: "button", onclick: () => sheet.close(), "aria-label": "Close" }, "✕");
  const body = el("div", { class: "sheet-body" }, el("p", {}, "…"));
  sheet.replaceChildren(
    el("div", { class: "sheet-top" }, el("h2", { id: "sheet-title" }, cell.name, " ", cell.verdict ? verdictBadge(cell.verdict) : null), close),
    body);
  if (!sheet.open) sheet.showModal();
  sheet.scrollTop = 0;
  const known = await data(`cell-${id}`);
  const parts = [facts(cell), ...(known ? about(cell, known) : [el("p", {}, "Its record could not be read.")])];
  const texts = await textsOf(id);
  if (opened !== id) return;
  body.replaceChildren(parts[0], ...(texts ? [texts] : []), ...parts.slice(1));
  if (known && known.latency) await histogram(known.latency);
}

function facts(cell) {
  const list = el("dl", { class: "facts" });
  for (const [name, value] of cell.facts) list.append(el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  return list;
}

async function textsOf(id) {
  const own = await data(`hypotheses-${id}`);
  if (!own) return null;
  const known = await data("utterances");
  const base = own.compared_with ? await data(`hypotheses-${own.compared_with}`) : null;
  const before = base && new Map(base.hypotheses.map((item) => [item[0], entry(item)]));
  const all = own.hypotheses.map(entry).map((item) => ({ item, before: before ? before.get(item.utterance) : null, known: known[item.utterance] }));
  return hypothesesPart(own, before ? all : all.filter(({ item }) => item.errors));
}

const ORDERS = {
  regressions: ["worst regressions first", (a, b) => change(b) - change(a) || b.item.errors - a.item.errors],
  errors: ["most errors first", (a, b) => b.item.errors - a.item.errors],
  improvements: ["improvements first", (a, b) => change(a) - change(b) || a.item.errors - b.item.errors],
  corpus: ["in corpus order", (a, b) => a.known[1].localeCompare(b.known[1]) || a.known[0].localeCompare(b.known[0], undefined, { numeric: true })],
};
const change = ({ item, before }) => (before ? item.errors - before.errors : 0);

function hypothesesPart(own, all) {
  const list = el("div");
  const find = el("input", { type: "search", id: "hypotheses-find", placeholder: "a word, an id, a speaker" });
  const order = el("select", { id: "hypotheses-order" });
  for (const [key, [text]] of Object.entries(ORDERS)) if (own.compared_with || !/regr|impr/.test(key)) order.append(el("option", { value: key }, text));
  const show = () => {
    const words = find.value.toLowerCase();
    const match = ({ item, before, known }) =>
      [known[0], known[1], known[2], known[5], item.scored, before && before.scored].some((text) => text && text.toLowerCase().includes(words));
    list.replaceChildren();
    more(list, all.filter(match).sort(ORDERS[order.value][1]), 0);
  };
  find.addEventListener("input", show);
  order.addEventListener("change", show);
  show();
  return el("section", { id: "hypotheses" },
    el("h3", {}, own.compared_with ? `Texts that differ from those of ${page.reference}` : "Texts with errors"),
    el("p", { class: "note" }, counted(own, all.length)),
    el("p", { class: "note legend" }, el("span", { class: "s" }, "wrong word"), el("span", {}, el("del", {}, "missing word")), el("span", {}, el("ins", {}, "extra word"))),
    el("div", { class: "controls" },
      el("div", { class: "field" }, el("label", { for: "hypotheses-find" }, "Find"), find),
      el("div", { class: "field" }, el("label", { for: "hypotheses-order" }, "Order"), order)),
    list);
}

function counted(own, shown) {
  const n = (count) => count.toLocaleString("en");
  const cut = shown < own.differing ? ` To keep this page small, the worst ${n(shown)} of them are here; the record holds all.` : "";
  if (!own.compared_with) return `Errors in ${n(own.differing)} of ${plural(own.utterances, "utterance")}.${cut}`;
  const same = own.differing - own.worse - own.better;
  return `Different in ${n(own.differing)} of ${plural(own.utterances, "utterance")}: ${n(own.worse)} with more word errors, ${n(own.better)} with fewer, ${n(same)} with as many.${cut}`;
}

function more(list, found, from) {
  if (!found.length) list.append(el("p", {}, "None."));
  list.append(...found.slice(from, from + AT_ONCE).map(({ item, before, known }) => utteranceCard(known, item, before)));
  const rest = found.length - from - AT_ONCE;
  if (rest <= 0) return;
  const button = el("button", { type: "button", onclick: () => { button.remove(); more(list, found, from + AT_ONCE); } }, `Show ${Math.min(rest, AT_ONCE)} more of ${rest}`);
  list.append(button);
}

function about(cell, known) {
  return [
    known.traceback ? part("Traceback", true, el("pre", {}, known.traceback)) : null,
    known.problems.length ? part(`${plural(known.problems.length, "utterance")} with a problem`, true, lines(["split", "utterance", "what", "detail", "measured"], known.problems)) : null,
    timing(known),
    receipt(known.receipt),
    part("Configuration", false, el("pre", {}, JSON.stringify(known.config, null, 1))),
    part("Environment", false, el("pre", {}, JSON.stringify(page.environments[cell.environment], null, 1)),
      el("p", { class: "note" }, `measured ${known.created}; cell ${opened}; ${Object.entries(known.fingerprints).map(([name, mark]) => `${name} ${mark.slice(0, 12)}`).join(", ")}${known.original ? `, from ${known.original}` : ""}`)),
  ].filter(Boolean);
}

const part = (title, open, ...children) => el("details", { class: "part", open }, el("summary", {}, title), ...children);

function lines(heads, rows, kind = "box") {
  const table = el("table", {}, el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col", class: "w" }, text)))));
  table.append(el("tbody", {}, rows.map((row) => el("tr", {}, row.map((text) => el("td", { class: typeof text === "number" ? null : "w" }, text === null ? "–" : typeof text === "number" ? text.toLocaleString("en") : text))))));
  return el("div", { class: kind, tabindex: "0", role: "region", "aria-label": heads.join(", ") }, table);
}

function timing(known) {
  const seconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(1)} s`;
  const list = el("dl", { class: "facts" });
  const add = (name, value) => list.append(el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  if (known.cold !== null) add("cold start (load, quantize, calibrate, first batch)", seconds(known.cold));
  for (const [name, value] of known.stages) add(name, seconds(value));
  if (known.recovered) {
    const { steps, best_step, utterances, held_out, loss_before, loss_after } = known.recovered;
    const losses = [loss_before, loss_after].map((loss) => loss.toPrecision(3)).join(" → ");
    add(`training, ${steps} steps on ${utterances} utterances`, `divergence on ${held_out} others ${losses} nats per token, best after ${best_step}`);
  }
  if (known.memory !== null) add("peak memory", bytes(known.memory));
  if (known.energy) add(`energy (${known.energy[1] || "source unknown"})`, `${known.energy[0].toFixed(0)} J`);
  if (known.fixed) {
    const fixed = known.fixed;
    const against = (speed) => (speed ? `, ${speed.ratio.toFixed(2)} × ${page.baseline} (${speed.verdict})` : "");
    add("encoder alone", `RTF ${fixed.encoder_rtf.toPrecision(3)}${against(fixed.encoder)}`);
    add(`one token, of ${fixed.forced_tokens} forced`, `${(1000 * fixed.token_s).toPrecision(3)} ms${against(fixed.token)}`);
  }
  const noise = known.noise ? known.noise.flags.map((flag) => el("p", { class: "warning" }, `⚠ ${flag}`)) : [];
  const chart = known.latency ? [el("h3", {}, "Time of each batch"), el("div", { class: "chart", id: "latency", role: "img", "aria-label": "histogram of seconds per batch" })] : [];
  return part("Timing", true, ...noise, list, ...chart);
}

async function histogram(latency) {
  if (!$("latency") || !window.Plotly) return;
  const centres = latency.cell.map((_, i) => (latency.edges[i] + latency.edges[i + 1]) / 2);
  const bars = (counts, title, shade) => ({ type: "bar", x: centres, y: counts, name: title, marker: { color: shade }, opacity: 0.75, hovertemplate: "%{y} batches of about %{x:.3g} s<extra></extra>" });
  const traces = [bars(latency.cell, "this cell", colour("library-0"))];
  if (latency.baseline.length) traces.push(bars(latency.baseline, `${page.baseline}, in turns`, colour("soft")));
  await Plotly.react("latency", traces, layout({ height: 230, barmode: "overlay", bargap: 0.05, showlegend: latency.baseline.length > 0, legend: { orientation: "h", y: 1.1, x: 0 }, margin: { l: 40, r: 10, t: 20, b: 40 }, xaxis: { title: { text: "seconds per batch" } }, yaxis: { title: { text: "batches" } } }), { ...CONFIG, displayModeBar: false });
}

function bitsByLayer(known) {
  const shade = (text) => (Number(text) ? `w bits-${Math.ceil(Number(text))}` : "w");
  const cells = (tag, row) => row.map((text, column) => el(tag, { class: column ? shade(text) : "w" }, text));
  const table = el("table", {}, el("thead", {}, el("tr", {}, cells("th", known.heads))), el("tbody", {}, known.rows.map((row) => el("tr", {}, cells("td", row)))));
  return el("div", { class: "box bits", tabindex: "0", role: "region", "aria-label": "bits by layer" }, table);
}

function receipt(known) {
  if (!known) return null;
  const sizes = Object.entries(known.bytes).map(([dtype, count]) => `${dtype} ${bytes(count)}`).join(", ");
  const proof = known.verified ? "Verified: read from the model itself" : `Not verified: ${known.problems.join("; ")}`;
  return part(`Receipt: ${known.quantized} of ${known.total} linear layers quantized`, false,
    el("p", {}, `${proof}. Stored as ${sizes}.`),
    known.bits ? el("h3", {}, "Bits by layer") : null,
    known.bits ? bitsByLayer(known.bits) : null,
    lines(["module", "class before", "after", "bytes before", "after", "kernel", "not quantized because", "stored as"], known.modules, "box modules"));
}
