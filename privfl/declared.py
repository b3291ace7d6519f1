"""Frozen models of what people declare (schemas, tasks, policies), whose complaints belong to privfl's error tree."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from privfl.declared_words import complaints
from privfl.errors import Misuse

__all__ = ["Declared"]


class Declared(BaseModel):
    """A frozen pydantic model; unknown fields, NaN and infinities are refused with Misuse."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    #: What a text field stands for, in complaints.
    text_means: ClassVar[str] = "text"

    def __init__(self, /, *values: Any, **fields: Any) -> None:
        if values:
            names = [field.alias or name for name, field in type(self).model_fields.items()]
            shown = ", ".join(f"{name}=..." for name in names[: max(2, len(values))])
            raise Misuse(f"every field is given by its name: write {type(self).__name__}({shown})")
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise Misuse(complaints(type(self), error.errors(), self.text_means)) from None
        except OverflowError:  # a whole number that no float holds
            raise Misuse("a number is too large; use at most 1e308") from None
