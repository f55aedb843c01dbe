// One utterance: reference, hypothesis of the cell that is compared with and of this cell, word by word.

// Runs of an alignment: "e5s1d2" → [["e", 5], ["s", 1], ["d", 2]].
const runs = (marks) => [...marks.matchAll(/([esdi])(\d+)/g)].map(([, kind, count]) => [kind, Number(count)]);

const errorCount = (marks) => runs(marks).reduce((sum, [kind, count]) => sum + (kind === "e" ? 0 : count), 0);

// The words of a hypothesis with errors marked; a deleted word is struck through in its place.
function marked(reference, hypothesis, marks) {
  const spoken = reference.split(/\s+/);
  const words = hypothesis.split(/\s+/);
  const line = el("p");
  let [at, on] = [0, 0];
  for (const [kind, count] of runs(marks))
    for (let i = 0; i < count; i++) {
      if (kind === "e") line.append(words[on]);
      if (kind === "s") line.append(el("span", { class: "s", title: `reference: ${spoken[at]}` }, words[on]));
      if (kind === "d") line.append(el("del", { title: "missing" }, spoken[at]));
      if (kind === "i") line.append(el("ins", { title: "not in the reference" }, words[on]));
      line.append(" ");
      if (kind !== "i") at++;
      if (kind !== "d") on++;
    }
  if (!hypothesis) line.append(el("i", {}, marks ? "(empty)" : ""));
  return line;
}

// An entry of a cell's block as an object.
const entry = ([utterance, scored, written, marks]) => ({ utterance, scored, written, marks, errors: errorCount(marks) });

const whose = (before) => (!before ? "hypothesis" : page.reference === page.baseline ? "quantized" : "this cell");

function utteranceCard(known, own, before) {
  const [id, split, speaker, seconds, audio, reference, written] = known;
  const change = before ? own.errors - before.errors : null;
  const count = before ? `${before.errors} → ${own.errors} word errors` : `${own.errors} word errors`;
  return el("article", { class: "utterance" },
    el("div", { class: "head" },
      el("span", { class: `badge ${change === null || !change ? "none" : change > 0 ? "bad" : "fine"}` }, change ? `${signed(change).replace(/\.00$/, "")}` : "±0"),
      el("span", {}, count),
      el("span", {}, [id, split, speaker, `${seconds} s`].filter((part) => part !== null).join(" · ")),
      audio ? player(audio, id) : null),
    el("div", { class: "hypotheses" },
      el("div", {}, el("b", {}, "reference"), el("p", {}, reference || "(empty after normalisation)")),
      before ? el("div", {}, el("b", {}, page.reference), marked(reference, before.scored, before.marks)) : null,
      el("div", { class: before ? null : "one" }, el("b", {}, whose(before)), marked(reference, own.scored, own.marks))),
    asWritten(written, own, before));
}

// The raw text, with the case and punctuation that scoring ignores.
function asWritten(reference, own, before) {
  const lines = [["reference", reference], [page.reference, before && before.written], [whose(before), own.written]].filter(([, text]) => text);
  if (!lines.length) return null;
  return el("details", {}, el("summary", {}, "as written"), lines.map(([who, text]) => el("p", { class: "note" }, `${who}: ${text}`)));
}

// Remove the player if the audio is not available, e.g. on another machine.
function player(source, id) {
  const made = el("audio", { controls: true, preload: "none", src: source, "aria-label": `audio of ${id}` });
  made.addEventListener("error", () => made.remove());
  return made;
}
