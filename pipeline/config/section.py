"""What every section of a config is: strict, closed, each field with its bounds, default and meaning."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Strict and closed: a wrong type or an unknown key is an error, never a silent default."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @classmethod
    def completed(cls, tree: dict, path: Path) -> dict:
        """A config's file as read, with what it names put in; ``path`` is the file's."""
        return tree
