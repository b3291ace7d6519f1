"""Vectors over Z_2^b: rings and their words, dense packing, fixed point, and the Hadamard rotation.

Pure: numpy and a cipher, no clock and no randomness of its own.
"""

from privfl.ring.fixed import Column, Quantised, dequantise, quantise, quantise_columns
from privfl.ring.hadamard import flatness, rotate, unrotate, window
from privfl.ring.packing import BLOCK, check_packed, pack, pack_into, packed_size, unpack, unpack_block
from privfl.ring.words import WORDS, Int64Array, Ring, WordArray, centred, noise_room, reduce, to_words

__all__ = [
    "BLOCK",
    "WORDS",
    "Column",
    "Int64Array",
    "Quantised",
    "Ring",
    "WordArray",
    "centred",
    "check_packed",
    "dequantise",
    "flatness",
    "noise_room",
    "pack",
    "pack_into",
    "packed_size",
    "quantise",
    "quantise_columns",
    "reduce",
    "rotate",
    "to_words",
    "unpack",
    "unpack_block",
    "unrotate",
    "window",
]
