"""Grids with hypotheses that err, as large as real ones, for tests of the page."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path

from helpers.synthetic import QUANTS, bad_result, result
from quantlab.records import storage
from quantlab.records.figures import split_result
from quantlab.records.schema import Batch, CellResult, Utterance
from quantlab.scoring import score

VOCABULARY = """the small boat sailed past nine green hills before evening rain came down and every child in town
ran home along river road because thunder rolled over barn school market while old men at windows counted seconds
between light sound until storm moved away toward sea leaving only wet leaves broken fence one white horse standing
alone under great oak that nobody had planted""".split()
SHARE = {"none": 0.04, "torch_int8": 0.042, "quanto_int8": 0.041, "quanto_int8_static": 0.06, "hqq_int4": 0.06,
         "hqq_int3": 0.12, "bnb_nf4": 0.05}  # of words that are heard wrong  # fmt: skip


def spoken(count: int, words: int = 20) -> list[Utterance]:
    """Utterances of a corpus: LibriSpeech's are about this long."""
    chance = random.Random("corpus")
    texts = (" ".join(chance.choices(VOCABULARY, k=chance.randint(words // 2, words * 3 // 2))) for _ in range(count))
    return [
        Utterance(id=f"utterance-{index:04}", split="other" if index % 2 else "clean", speaker=f"s{index % 40}",
                  audio_s=len(text) / 15, reference=text, hypothesis=text, tokens=len(text) // 4)
        for index, text in enumerate(texts)
    ]  # fmt: skip


MODELS = {
    "nano": 1.6,
    "tiny": 1.3,
    "base": 1.0,
    "small": 0.7,
    "medium": 0.5,
}  # WER; size and time go the other way


def heard(said: Utterance, share: float, who: str) -> Utterance:
    """The utterance with errors: most of them those that every cell makes, some of its own."""
    common, own = random.Random(said.id), random.Random(f"{said.id} {who}")
    text = " ".join(_slipped(word, common if own.random() < 0.7 else own, share) for word in said.reference.split())
    return said.model_copy(update={"hypothesis": " ".join(text.split()), "loop": False})


def _slipped(word: str, chance: random.Random, share: float) -> str:
    kind = chance.choice(("substitute", "substitute", "delete", "insert")) if chance.random() < share else ""
    other = chance.choice(VOCABULARY)
    return {"substitute": other, "delete": "", "insert": f"{word} {other}", "": word}[kind]


def counted(said: Utterance) -> Utterance:
    return said.model_copy(update=asdict(score.count(said.reference, said.hypothesis or "")))


def cell(
    quant: str, said: list[Utterance], cell_id: str, counts: dict[tuple[str, str], Utterance], model: str = "base"
) -> CellResult:
    """A cell whose figures are those of its hypotheses.

    `counts` remembers what was scored: cells of a grid hear much the same.
    """
    made = result(quant, cell_id=cell_id, model__name=model).record
    utterances = []
    for item in said:
        found = heard(item, SHARE[quant] * MODELS[model], f"{model} {quant}")
        key = (found.reference, found.hypothesis or "")
        if key not in counts:
            counts[key] = counted(found)
        utterances.append(counts[key].model_copy(update={"id": item.id, "split": item.split}))
    larger, chance = MODELS[model] ** -3, random.Random(cell_id)
    batches = [
        Batch(split=split, index=index, utterances=16, audio_s=100.0, tokens=800,
              elapsed_s=100 * QUANTS[quant][7] * larger * chance.gauss(1, 0.03))
        for split in ("clean", "other") for index in range(max(1, len(said) // 32))
    ]  # fmt: skip
    splits = {
        split: split_result([u for u in utterances if u.split == split], [b for b in batches if b.split == split])
        for split in dict.fromkeys(item.split for item in said)
    }
    size = {name: round(getattr(made.receipt, name) * larger) for name in ("size_bytes", "baseline_bytes", "params")}
    receipt = made.receipt.model_copy(update=size | {"bytes_by_dtype": {"float32": size["size_bytes"]}})
    record = made.model_copy(update={"splits": splits, "receipt": receipt})
    return CellResult(record=record, utterances=tuple(utterances), batches=tuple(batches))


def large_grid(root: Path, cells: int = 30, utterances: int = 400) -> None:
    """Good cells of several models, and two that are not."""
    said, counts = spoken(utterances), {}
    plan = [(model, quant) for model in MODELS for quant in QUANTS if quant != "quanto_int8_static"][:cells]
    for index, (model, quant) in enumerate(plan):
        storage.write(root, cell(quant, said, f"cell{index:03}", counts, model))
    storage.write(
        root, bad_result("unsupported", "torch dynamic int8 has no CUDA kernels", cell_id="bad0", device="cuda")
    )
    storage.write(root, bad_result("oom", "needs 3.2 GB, has 2.0", "hqq_int3", cell_id="bad1", model__name="large_v3"))
