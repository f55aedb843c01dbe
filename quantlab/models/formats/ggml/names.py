"""Names of modules and parameters in whisper.cpp and in transformers.

Source: whisper.cpp 1.8, src/whisper-arch.h.
"""

from __future__ import annotations

# Linear, norm or convolution within a layer → name within a block of whisper.cpp
IN_LAYER = {
    "self_attn_layer_norm": "attn_ln",
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "final_layer_norm": "mlp_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}
ELSEWHERE = {
    "model.encoder.conv1": "encoder.conv1",
    "model.encoder.conv2": "encoder.conv2",
    "model.encoder.layer_norm": "encoder.ln_post",
    "model.decoder.layer_norm": "decoder.ln",
    "model.decoder.embed_tokens": "decoder.token_embedding",
    "proj_out": "decoder.token_embedding",
}
POSITIONS = {
    "model.encoder.embed_positions.weight": "encoder.positional_embedding",
    "model.decoder.embed_positions.weight": "decoder.positional_embedding",
}
EMBEDDING = "decoder.token_embedding.weight"  # also proj_out, which is tied to it
TEXT_POSITIONS = "decoder.positional_embedding"


def module_in_file(module: str) -> str:
    """The whisper.cpp name of a module of transformers' `WhisperForConditionalGeneration`."""
    if module in ELSEWHERE:
        return ELSEWHERE[module]
    _, part, _, index, below = module.split(".", 4)  # model.encoder.layers.0.self_attn.q_proj
    return f"{part}.blocks.{index}.{IN_LAYER[below]}"


def tensor_in_file(parameter: str) -> str:
    """The whisper.cpp name of a parameter of transformers' model."""
    if parameter in POSITIONS:
        return POSITIONS[parameter]
    module, _, kind = parameter.rpartition(".")
    return f"{module_in_file(module)}.{kind}"
