"""Rounding of weights to a few levels, to the nearest or by calibration data, for HQQ's layer."""

from quantlab.quantization.rounding.gptq import Rounded, gptq, nearest
from quantlab.quantization.rounding.levels import Levels
from quantlab.quantization.rounding.statistics import Block, by_block, hessians

__all__ = ["Block", "Levels", "Rounded", "by_block", "gptq", "hessians", "nearest"]
