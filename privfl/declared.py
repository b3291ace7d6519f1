"""Frozen models of what people declare (schemas, tasks, policies), whose complaints belong to privfl's error tree."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from privfl.errors import Misuse

__all__ = ["Declared"]


class Declared(BaseModel):
    """A frozen pydantic model; unknown fields, NaN and infinities are refused with Misuse."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise Misuse("; ".join(_complaint(type(self), item) for item in error.errors())) from None
        except OverflowError:  # a whole number that no float holds
            raise Misuse("a number is too large; use at most 1e308") from None


def _complaint(model: type[BaseModel], item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    text = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
        names = [field.alias or name for name, field in model.model_fields.items()]
        near = get_close_matches(where, names, 1)
        text = f"there is no such field; {f'did you mean {near[0]}?' if near else 'there are ' + ', '.join(names)}"
    return f"{where}: {text}" if where else text
