// Placement of labels beside points, only where they cover no other label or point.

const LETTER = 6.6; // px, of a 12 px label
const LINE = 15;
const FAR = 28; // from its point, with a line to it, where there is no room beside it

// Annotations for points {text, x, y (axis values), px, py (pixels), r (pixels)}, in order of importance.
function placed(points, width, height) {
  const taken = points.map(({ px, py, r }) => [px - r, py - r, px + r, py + r]);
  const found = [];
  const veil = colour("veil");
  for (const point of points) {
    const w = point.text.length * LETTER;
    const free = (box) => inside(box, width, height) && !taken.some((other) => overlap(box, other));
    const near = spots(point, w, 0).find(free);
    const spot = near || (point.strong && spots(point, w, FAR).find((box) => free(box) && reaches(point, box, points)));
    if (!spot) continue;
    taken.push(spot);
    const [dx, dy] = [(spot[0] + spot[2]) / 2 - point.px, (spot[1] + spot[3]) / 2 - point.py];
    const far = { showarrow: true, arrowhead: 0, arrowwidth: 1, arrowcolor: colour("soft"), ax: dx, ay: dy, standoff: point.r };
    found.push({
      text: plain(point.text), x: point.x, y: point.y, xanchor: "center", yanchor: "middle",
      bgcolor: veil, borderpad: 0, font: { size: 12, color: colour(point.strong ? "ink" : "soft") },
      ...(near ? { showarrow: false, xshift: dx, yshift: -dy } : far),
    });
  }
  return found;
}

// Candidate boxes for a label: right, left, above, below, then the corners, at a distance of `away` px.
function spots({ px, py, r }, w, away) {
  const [far, up] = [r + 3 + w / 2 + away, r + 2 + LINE / 2 + away];
  const centres = [[far, 0], [-far, 0], [0, -up], [0, up], [far * 0.8, -up * 0.8], [far * 0.8, up * 0.8],
    [-far * 0.8, -up * 0.8], [-far * 0.8, up * 0.8]];
  return centres.map(([dx, dy]) => [px + dx - w / 2, py + dy - LINE / 2, px + dx + w / 2, py + dy + LINE / 2]);
}

// A line to a label must not cross another point, which it would seem to name.
function reaches(point, box, points) {
  const [dx, dy] = [(box[0] + box[2]) / 2 - point.px, (box[1] + box[3]) / 2 - point.py];
  const on = ({ px, py, r }, x, y) => Math.hypot(x - px, y - py) < r + 2;
  const steps = Array.from({ length: 20 }, (_, step) => [point.px + (dx * step) / 20, point.py + (dy * step) / 20]);
  return points.every((other) => other === point || steps.every(([x, y]) => on(point, x, y) || !on(other, x, y)));
}

const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
const inside = (box, width, height) => box[0] > 0 && box[1] > 0 && box[2] < width && box[3] < height;

// Readable ticks of a logarithmic axis: 1, 2, 5, and more if few decades are shown.
function logTicks(low, high, show) {
  for (const digits of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]]) {
    const values = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const digit of digits) values.push(digit * 10 ** power);
    const within = values.filter((value) => value >= low * 0.999 && value <= high * 1.001);
    if (within.length >= 3) return { tickvals: within, ticktext: within.map(show) };
  }
  return {};
}
const short = (value) => String(Number(value.toPrecision(2)));
