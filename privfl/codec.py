"""The canonical encoding, shared with the keys package so that there is only one."""

from __future__ import annotations

from privfl_keys.encoding import Bounds, Bytes32, Bytes64, Record, Uint32, Uint64, Value, decode, encode

__all__ = ["Bounds", "Bytes32", "Bytes64", "Record", "Uint32", "Uint64", "Value", "decode", "encode"]
