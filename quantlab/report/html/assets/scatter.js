// Scatter plot of WER against cost (time or size); bubble area = model size, with the Pareto front and its band.

const COSTS = {
  rtf: { name: "real-time factor", title: "RTF (generation time / audio time)", of: (v) => v, show: short },
  ratio: {
    get name() { return `time / ${page.baseline}`; },
    get title() { return `time of the cell / time of ${page.baseline}`; },
    of: (v) => v, show: short,
  },
  size: { name: "size", title: "size of the model, MB", of: (v) => v / 1e6, show: short },
};
const SMALLEST = 9; // px
const view = { x: "rtf", split: "", whole: false };
const widest = () => ($("scatter").clientWidth < 560 ? 24 : 34); // px, diameter of the largest model

function measuredCells() {
  return group().cells.filter((id) => {
    const cell = page.cells[id];
    return cell.status === "ok" && cell.cost[view.x] && cell.wer[view.split];
  });
}

function span(values) {
  const there = values.filter((value) => value !== null && value !== undefined);
  return [Math.min(...there), Math.max(...there)];
}

const wide = ([low, high]) => low > 0 && high / low > 8;

// Outliers far above are pinned to the edge, so that a failed model does not compress the others.
function ceiling(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted[Math.floor((sorted.length - 1) / 2)];
  return sorted.at(-1) > 5 * middle && middle > 0 ? 3 * middle : sorted.at(-1);
}

async function scatter() {
  const ids = measuredCells();
  $("trade-off").hidden = !ids.length;
  if (!ids.length) return;
  const cost = COSTS[view.x];
  const xs = span(ids.map((id) => cost.of(page.cells[id].cost[view.x][0])));
  const all = ids.map((id) => 100 * page.cells[id].wer[view.split][0]);
  const top = view.whole ? Math.max(...all) : ceiling(all);
  const above = all.filter((value) => value > top).length;
  const near = ids.map((id) => page.cells[id].bars[view.split]).filter(([value]) => 100 * value <= top);
  const ends = ([value, low, high]) => [value, Math.max(low ?? value, value / 3), Math.min(high ?? value, (1.5 * top) / 100)];
  const ys = span(near.flatMap(ends).map((value) => 100 * value));
  const spots = new Map(ids.map((id) => [id, spot(id, cost, top, axisEnd(ys))]));
  const front = group().fronts[`${view.x} ${view.split}`];
  const axes = { xaxis: axis(cost.title, xs, wide(xs), cost.show), yaxis: axis(`${page.rate}, %`, ys, wide(ys), short) };
  const narrow = $("scatter").clientWidth < 560;
  const legend = { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, itemsizing: "constant", font: { size: 12 }, ...(narrow ? { entrywidth: 70 } : {}) };
  await draw("scatter", [...frontTraces(front, cost, xs), ...libraryTraces(spots, front), ...dimmedTrace(spots)],
    { ...axes, showlegend: true, legend, margin: { l: 50, r: 15, t: 30, b: 45 } });
  await nameThem();
  tellFront(front, above, top);
  $("whole").parentElement.hidden = !above && !view.whole;
}

// Position of a cell: [value, low, high] on both axes, and whether it is pinned to the upper edge.
function spot(id, cost, top, edge) {
  const cell = page.cells[id];
  const scaled = (triple, of) => triple.map((v) => (v === null ? null : of(v)));
  const [x, y] = [scaled(cell.cost[view.x], cost.of), scaled(cell.bars[view.split], (v) => 100 * v)];
  return y[0] > top ? { x, y: [edge, null, null], pinned: true, wer: y[0] } : { x, y, pinned: false };
}

// Axis range with room for bubbles and labels.
function axis(title, [low, high], log, show) {
  const shared = { title: { text: title, standoff: 8 } };
  if (log) {
    const range = [low / (high / low) ** 0.08 / 1.03, high * (high / low) ** 0.12 * 1.05];
    return { ...shared, type: "log", range: range.map(Math.log10), tickmode: "array", ...logTicks(...range, show) };
  }
  return { ...shared, type: "linear", tickmode: "auto", range: [Math.max(0, low - room(low, high)), high + 1.4 * room(low, high)] };
}
const room = (low, high) => Math.max((high - low) * 0.12, high * 0.02, 1e-9);
const axisEnd = ([low, high]) => (wide([low, high]) ? high * (high / low) ** 0.09 : high + 1.1 * room(low, high));

function frontTraces(front, cost, xs) {
  if (!front) return [];
  const ends = front.cells.map((id) => page.cells[id]);
  const line = (x, y, more) => ({ x, y, mode: "lines", line: { shape: "hv", width: 0 }, hoverinfo: "skip", ...more });
  const at = front.x.map(cost.of);
  const spread = front.high.some((high, index) => high > front.low[index]);
  const right = xs[1];
  return [
    ...(spread ? [
      line(at, front.low.map((v) => 100 * v), { showlegend: false }),
      line(at, front.high.map((v) => 100 * v), { fill: "tonexty", fillcolor: colour("band"), name: "95 % band", showlegend: true }),
    ] : []),
    line([...ends.map((cell) => cost.of(cell.cost[view.x][0])), right],
      [...ends, ends.at(-1)].map((cell) => 100 * cell.wer[view.split][0]),
      { line: { shape: "hv", width: 2, dash: "dot", color: colour("accent") }, name: "Pareto front", showlegend: true }),
  ];
}

function diameter(id) {
  const largest = Math.max(...group().cells.map((other) => page.cells[other].size || 0));
  return Math.max(SMALLEST, widest() * Math.sqrt((page.cells[id].size || 0) / largest));
}

function errors(triples) {
  if (!triples.some((triple) => triple[1] !== null)) return { visible: false };
  const above = triples.map(([value, , high]) => (high === null ? 0 : high - value));
  const below = triples.map(([value, low]) => (low === null ? 0 : value - low));
  return { type: "data", symmetric: false, array: above, arrayminus: below, thickness: 1, width: 2, visible: true };
}

function libraryTraces(spots, front) {
  return page.libraries.map((library) => {
    const own = [...spots.keys()].filter((id) => page.cells[id].library === library && passes(id));
    const { colour: shade, symbol } = look(library);
    const at = own.map((id) => spots.get(id));
    const ring = library === "none";
    return {
      type: "scatter", mode: "markers", name: ring ? page.baseline : plain(library), showlegend: own.length > 0,
      x: at.map(({ x }) => x[0]), y: at.map(({ y }) => y[0]),
      error_x: { ...errors(at.map(({ x }) => x)), color: shade }, error_y: { ...errors(at.map(({ y }) => y)), color: shade },
      marker: {
        size: own.map((id) => (spots.get(id).pinned ? 12 : diameter(id))), color: shade, opacity: 0.85,
        symbol: at.map(({ pinned }) => (pinned ? "triangle-up-open" : symbol)), line: { color: ring ? shade : colour("card"), width: ring ? 3 : 1.5 },
      },
      customdata: own.map((id) => [id, hoverText(id, share(front, id))]), hovertemplate: "%{customdata[1]}<extra></extra>",
    };
  });
}

const share = (front, id) =>
  front && id in front.share ? [["on the Pareto front", `in ${percent(front.share[id], 0)} % of draws`]] : [];

// Filtered cells stay visible as shadows, as the front is that of all cells.
function dimmedTrace(spots) {
  const rest = [...spots].filter(([id]) => !passes(id));
  if (!rest.length) return [];
  return [{
    type: "scatter", mode: "markers", hoverinfo: "skip", showlegend: false,
    x: rest.map(([, { x }]) => x[0]), y: rest.map(([, { y }]) => y[0]),
    marker: { size: rest.map(([id]) => diameter(id)), color: "rgba(0,0,0,0)", line: { color: colour("line"), width: 1 } },
  }];
}

// Labels of the visible points, those on the front first.
async function nameThem() {
  const chart = $("scatter");
  const { xaxis, yaxis } = chart._fullLayout;
  const front = group().fronts[`${view.x} ${view.split}`];
  const rank = (id) => (["baseline", "reference"].includes(page.cells[id].verdict) ? 2 : (front && front.share[id]) || 0);
  const found = [];
  for (const trace of chart.data.filter((one) => one.customdata)) {
    trace.customdata.forEach(([id], index) => {
      const [x, y] = [xaxis.d2c(trace.x[index]), yaxis.d2c(trace.y[index])];
      const symbol = trace.marker.symbol[index];
      const pinned = symbol === "triangle-up-open" ? ` ${percent(page.cells[id].wer[view.split][0], 0)} %` : "";
      found.push({
        id, text: page.cells[id].label + pinned, x: xaxis.type === "log" ? Math.log10(trace.x[index]) : x,
        y: yaxis.type === "log" ? Math.log10(trace.y[index]) : y, px: xaxis.l2p(xaxis.c2l(x)), py: yaxis.l2p(yaxis.c2l(y)),
        r: trace.marker.size[index] / 2, strong: rank(id) > 0.05,
      });
    });
  }
  const within = ({ px, py }) => px >= 0 && py >= 0 && px <= xaxis._length && py <= yaxis._length;
  const ordered = found.filter(within).sort((a, b) => rank(b.id) - rank(a.id));
  await Plotly.relayout(chart, { annotations: placed(ordered, xaxis._length, yaxis._length) });
}

function tellFront(front, above, top) {
  const bars = group().few ? `there are no intervals: ${group().few}` : group().paired ? `bars are 95 % intervals of the comparison with ${page.reference} on the same utterances` : "bars are 95 % intervals";
  const parts = [`Lower left is better; bubble area is model size; ${bars}.`];
  if (above) parts.push(`△ ${above} ${above === 1 ? "cell lies" : "cells lie"} above ${short(top)} % ${page.rate}, at the upper edge.`);
  if (front) {
    const sure = Object.entries(front.share).sort((a, b) => b[1] - a[1]).filter(([, part]) => part >= 0.05);
    const named = sure.slice(0, 6).map(([id, part]) => `${page.cells[id].label} ${percent(part, 0)} %`).join(", ");
    parts.push(`How often a cell is on the Pareto front when all are redrawn within their intervals: ${named}${sure.length > 6 ? ` and ${sure.length - 6} more` : ""}.`);
  }
  if (view.x !== "size" && measuredCells().some((id) => page.cells[id].cost[view.x][1] === null))
    parts.push("Time without an interval was measured once and is taken as exact; protocol=careful measures its interval.");
  $("scatter-note").textContent = parts.join(" ");
}
