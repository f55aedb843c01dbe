"""A transformers folder in the layouts of three recognisers; run by benchmarks/engines_in_turns.py in its environment.

    python export.py MODEL OUT [EXPORT_SCRIPT]

`OUT/faster-whisper` is made by CTranslate2's converter, `OUT/onnx-asr` by optimum and ONNX Runtime's
`quantize_dynamic`, and `OUT/sherpa-onnx` by sherpa-onnx's own script (scripts/whisper/export-onnx.py of its
repository), which knows OpenAI's class of the model only and gets these weights in it.
"""

import functools
import json
import os
import runpy
import sys
from pathlib import Path

RENAMED = {  # part of a name in transformers → in openai-whisper, in this order
    "model.": "",
    ".layers.": ".blocks.",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn": "cross_attn",
    "self_attn": "attn",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "out",
    "embed_positions.weight": "positional_embedding",
    "embed_tokens": "token_embedding",
    "encoder.layer_norm": "encoder.ln_post",
    "decoder.layer_norm": "decoder.ln",
}
DIMENSIONS = {  # of openai-whisper → key of config.json
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}


def main():
    model, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    to_faster_whisper(model, out / "faster-whisper")
    to_onnx_asr(model, out / "onnx-asr")
    if len(sys.argv) > 3:
        to_sherpa_onnx(model, out / "sherpa-onnx", Path(sys.argv[3]).resolve())


def to_faster_whisper(model, out):
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(model), copy_files=["tokenizer.json"]).convert(str(out), quantization="int8")


def to_onnx_asr(model, out):
    """Products with weights become int8; convolutions stay in fp32, as integer ones are slower."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from optimum.exporters.onnx import main_export

    main_export(str(model), out, task="automatic-speech-recognition-with-past", do_validation=False)
    for name in ("encoder_model", "decoder_model_merged"):
        quantize_dynamic(
            out / f"{name}.onnx",
            out / f"{name}_int8.onnx",
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            extra_options={"EnableSubgraph": True},  # both branches of the merged decoder
        )


def to_sherpa_onnx(model, out, script):
    import torch
    import whisper

    out.mkdir(parents=True)
    os.chdir(out)  # the script writes there
    whisper.load_model = lambda name: of_openai(model)
    torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)  # the default when the script was written
    sys.argv = [str(script), "--model", "base"]  # a name for its files
    runpy.run_path(str(script), run_name="__main__")


def of_openai(folder):
    """The weights of a transformers folder in OpenAI's class."""
    from safetensors.torch import load_file
    from whisper.model import ModelDimensions, Whisper

    config = json.loads((folder / "config.json").read_text())
    made = Whisper(ModelDimensions(**{ours: config[theirs] for ours, theirs in DIMENSIONS.items()}))
    weights = load_file(folder / "model.safetensors")
    made.load_state_dict({renamed(name): weight for name, weight in weights.items()})  # refuses what is left over
    return made.eval()


def renamed(name):
    for theirs, ours in RENAMED.items():
        name = name.replace(theirs, ours)
    return name


if __name__ == "__main__":
    main()
