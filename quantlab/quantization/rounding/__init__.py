"""Rounding of weights to a few levels, to the nearest or by calibration data, for HQQ's layer; scales of inputs."""

from quantlab.quantization.rounding.awq import input_scale
from quantlab.quantization.rounding.folding import fold, places, scaled
from quantlab.quantization.rounding.gptq import gptq
from quantlab.quantization.rounding.levels import Levels
from quantlab.quantization.rounding.rounded import Rounded, clipped, nearest
from quantlab.quantization.rounding.smoothing import smoothing_scale
from quantlab.quantization.rounding.statistics import Block, by_block, hessians, maxima

__all__ = [
    "Block",
    "Levels",
    "Rounded",
    "by_block",
    "clipped",
    "fold",
    "gptq",
    "hessians",
    "input_scale",
    "maxima",
    "nearest",
    "places",
    "scaled",
    "smoothing_scale",
]
