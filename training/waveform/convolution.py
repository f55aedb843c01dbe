"""Convolutions over (batch, time, channels) as products of matrices: on a CPU in bfloat16 thrice as fast as Conv1d."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolve(hidden: Tensor, layer: nn.Conv1d) -> Tensor:
    """`layer`, without padding, on (batch, time, channels) instead of (batch, channels, time)."""
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    weight = layer.weight.permute(0, 2, 1).flatten(1)
    return functional.linear(_windows(hidden, kernel, stride), weight, layer.bias)


def outputs_of(inputs: Tensor, layer: nn.Conv1d) -> Tensor:
    """How many outputs `layer`, without padding, has of so many inputs, int64."""
    return (inputs - layer.kernel_size[0]) // layer.stride[0] + 1


def _windows(hidden: Tensor, kernel: int, stride: int) -> Tensor:
    """What each output reads, (batch, outputs, kernel * channels)."""
    batch, time, channels = hidden.shape
    count = (time - kernel) // stride + 1
    if stride <= kernel < 2 * stride:  # whole strides, which need no copy, and what the next window shares
        whole = hidden[:, : stride * count].reshape(batch, count, stride * channels)
        if kernel == stride:
            return whole
        rest = hidden[:, stride : stride * count + kernel - stride].unfold(1, kernel - stride, stride)
        return torch.cat([whole, rest.transpose(2, 3).flatten(2)], 2)
    return hidden.unfold(1, kernel, stride).transpose(2, 3).flatten(2)
