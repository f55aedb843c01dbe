// Charts of every cell against its baseline or other reference, and of WER by split.

const ROW = 27; // px
const MOST_ROWS = 60; // more would be a wall; the table has them all
let againstSplit;

const best = (ids, value) => [...ids].sort((a, b) => value(a) - value(b));

async function forest() {
  const found = (id) => page.cells[id].difference[againstSplit];
  const ids = group().cells.filter((id) => found(id) && passes(id));
  const all = best(ids, (id) => found(id)[0]);
  $("against").hidden = !group().cells.some(found);
  const shown = all.slice(0, MOST_ROWS);
  const limit = edge(shown.map(found));
  const traces = Object.entries(VERDICT_LOOK).map(([word, looks]) => {
    const own = shown.filter((id) => page.cells[id].verdict === word);
    return forestTrace(own, found, limit, looks);
  });
  const margin = page.margin === null ? 0 : 100 * page.margin;
  const narrow = $("forest").clientWidth < 560;
  await draw("forest", traces, {
    height: 90 + ROW * Math.max(shown.length, 3),
    margin: { l: 10, r: narrow ? 105 : 190, t: 30, b: 45 },
    xaxis: { title: { text: `${page.rate} − ${page.rate} of ${page.reference}, points` }, range: [Math.max(-limit, lowest(shown.map(found)) * 1.3 - 0.3), limit] },
    yaxis: { categoryorder: "array", categoryarray: shown.map(name).reverse(), range: [-0.6, Math.max(shown.length, 3) - 0.4], tickfont: { size: 12 }, gridcolor: "rgba(0,0,0,0)" },
    shapes: [
      ...(margin ? [{ type: "rect", xref: "x", yref: "paper", x0: -margin, x1: margin, y0: 0, y1: 1, fillcolor: colour("zone"), line: { width: 0 }, layer: "below" }] : []),
      { type: "line", xref: "x", yref: "paper", x0: 0, x1: 0, y0: 0, y1: 1, line: { color: colour("soft"), width: 1.5 }, layer: "below" },
    ],
    annotations: [...shown.map((id) => verdictWords(id, found, narrow)), { x: 0, y: 1, xref: "x", yref: "paper", yanchor: "bottom", text: page.reference, showarrow: false, font: { color: colour("soft"), size: 12 } }],
  });
  const held = shown.filter((id) => againstSplit === page.pooled && page.cells[id].verdict === "underpowered" && found(id)[1] > 0);
  const holm = held.length ? ` A bar that excludes 0 is not enough for “worse” where ${all.length} cells are compared: ${held.map((id) => page.cells[id].label).join(", ")}.` : "";
  const word = againstSplit === page.pooled ? "" : " The verdict is that of all splits together.";
  const more = all.length > shown.length ? ` The ${shown.length} lowest of ${all.length} cells are shown; filter to see others.` : "";
  const bars = shown.some((id) => found(id)[1] !== null)
    ? "Each bar is the 95 % interval of the difference, from the same utterances on both sides."
    : `There are no bars, as there are no intervals${group().few ? `: ${group().few}` : ""}.`;
  $("forest-note").textContent =
    `${bars} Shaded: less than ${margin} points ` +
    `either way, the margin of this report.${shown.some((id) => 100 * Math.abs(found(id)[0]) > limit) ? " ▸ lies beyond the edge." : ""}${word}${holm}${more}`;
}

const name = (id) => plain(page.cells[id].label);
const lowest = (triples) => 100 * Math.min(0, ...triples.map(([value, low]) => low ?? value));

// The axis covers most cells, so that one failed cell does not compress all others.
function edge(triples) {
  const ends = triples.map(([value, low, high]) => 100 * Math.max(Math.abs(low ?? value), Math.abs(high ?? value))).sort((a, b) => a - b);
  const margin = page.margin === null ? 0.5 : 100 * page.margin;
  if (!ends.length) return 3 * margin;
  const most = Math.max(3 * margin, 4 * ends[Math.floor((ends.length - 1) / 2)]);
  return 1.08 * (ends.at(-1) > 2 * most ? most : Math.max(3 * margin, ends.at(-1)));
}

function forestTrace(ids, found, limit, [shade, symbol]) {
  const clipped = ids.map((id) => found(id).map((v) => (v === null ? null : Math.max(-limit, Math.min(limit, 100 * v)))));
  return {
    type: "scatter", mode: "markers", y: ids.map(name), x: clipped.map(([value]) => value),
    error_x: {
      type: "data", symmetric: false, thickness: 2, width: 0, color: colour(shade),
      array: clipped.map(([value, , high]) => (high === null ? 0 : high - value)),
      arrayminus: clipped.map(([value, low]) => (low === null ? 0 : value - low)),
    },
    marker: { size: 11, color: colour(shade), symbol: ids.map((id) => (100 * Math.abs(found(id)[0]) > limit ? "triangle-right" : symbol)) },
    cliponaxis: false,
    customdata: ids.map((id) => [id, hoverText(id)]), hovertemplate: "%{customdata[1]}<extra></extra>",
  };
}

function verdictWords(id, found, narrow) {
  const { verdict } = page.cells[id];
  const [shade, , sign] = VERDICT_LOOK[verdict];
  const value = signed(100 * found(id)[0]);
  return {
    x: 1, xref: "paper", xanchor: "left", xshift: 8, y: name(id), yref: "y", showarrow: false, align: "left",
    text: narrow ? `${sign} ${value}` : `<b>${value}</b>  ${sign} ${verdict}`, font: { color: colour(shade), size: 12 },
  };
}

// WER of each split, connected by lines that show the robustness gap.
async function splits() {
  const names = group().splits;
  const ids = group().cells.filter((id) => passes(id) && names.some((split) => page.cells[id].wer[split]));
  $("robustness").hidden = names.length < 2 || !ids.length;
  if ($("robustness").hidden) return;
  $("splits-title").textContent = `${page.rate} on ${names.slice(0, -1).join(", ")} and on ${names.at(-1)}`;
  const wer = (id, split) => page.cells[id].wer[split] || [null, null, null];
  const shown = best(ids, (id) => page.cells[id].wer[page.pooled]?.[0] ?? 1e9).slice(0, MOST_ROWS);
  const range = span(shown.flatMap((id) => names.map((split) => wer(id, split)[0])).map((v) => (v === null ? null : 100 * v)));
  const log = wide(range);
  const lines = shown.map((id) => ({
    type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, line: { color: colour("soft"), width: 2 },
    x: names.map((split) => wer(id, split)[0]).map((v) => (v === null ? null : 100 * v)), y: names.map(() => name(id)),
  }));
  const dots = names.map((split, index) => ({
    type: "scatter", mode: "markers", name: plain(split), x: shown.map((id) => 100 * wer(id, split)[0]), y: shown.map(name),
    error_x: { ...errors(shown.map((id) => wer(id, split).map((v) => (v === null ? null : 100 * v)))), color: colour(`library-${index}`) },
    marker: { size: 11, color: colour(`library-${index}`), symbol: SYMBOLS[index % SYMBOLS.length], line: { color: colour("card"), width: 1 } },
    customdata: shown.map((id) => [id, hoverText(id)]), hovertemplate: "%{customdata[1]}<extra></extra>",
  }));
  tellSplits(log);
  const gaps = names.length === 2 && $("splits").clientWidth > 560;
  await draw("splits", [...lines, ...dots], {
    height: 110 + ROW * shown.length, showlegend: true,
    legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 },
    margin: { l: 10, r: gaps ? 120 : 20, t: 30, b: 45 },
    xaxis: axis(`${page.rate}, %`, range, log, short),
    yaxis: { categoryorder: "array", categoryarray: shown.map(name).reverse(), range: [-0.6, shown.length - 0.4], tickfont: { size: 12 }, gridcolor: "rgba(0,0,0,0)" },
    annotations: gaps ? shown.map((id) => gapWords(id, wer(id, names[0])[0], wer(id, names[1])[0])) : [],
  });
}

function tellSplits(log) {
  const scale = log ? "The axis is logarithmic, so compare the gaps by their figures, not by the length of the lines" : "The longer the line, the larger the gap between the splits";
  $("splits-note").textContent = `${scale}; lowest ${page.rate} first. Thin bars are 95 % intervals.`;
}

function gapWords(id, easy, hard) {
  const text = easy === null || hard === null ? "" : `gap ${signed(100 * (hard - easy))}`;
  return { x: 1, xref: "paper", xanchor: "left", xshift: 8, y: name(id), yref: "y", showarrow: false, text, font: { size: 12, color: colour("soft") } };
}
