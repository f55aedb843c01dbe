"""Allocation: how many bits each module gets, so that the model loses least within a budget of bytes."""

from quantlab.allocation.choose import Format, cheapest, choose
from quantlab.allocation.search import Found, find
from quantlab.allocation.written import show, write

__all__ = ["Format", "Found", "cheapest", "choose", "find", "show", "write"]
