"""Text of generated kernels, with holes for what depends on the landscape."""

from __future__ import annotations

__all__ = ["TEMPLATE"]

# Each loop over replicas is a function of its own: only then is it turned into vector instructions. Rows are parts of
# one array, a known distance apart: rows of their own would be checked for overlap, and many of them not vectorised.
# What the functions are for is told in `kernel_engine`, which calls them.
TEMPLATE = '''"""Generated from a symbolic landscape; do not edit."""
import math

import numpy as np

from kramers_grok.core.compiled import njit, wide_vectors



@njit
def leap(count, x, y, mark, flags, z, first, moments, hyper, own, sign, threshold, floor, border, reach, constants):
    wide_vectors()
{unpack}{leap_hyper}{nearest}    found = 0
    for i in range(count):
{leap}
        flags[i] = suspect
        found += suspect
    return found


@njit
def move(count, x, z, first, moments, drawn, hyper, now, own, constants):
    wide_vectors()
{unpack}{move_hyper}    for i in range(count):
{move}


@njit
def watch(count, x, sign, threshold, border, score, distance, constants):
    wide_vectors()
{unpack}    for i in range(count):
{watch}
'''
