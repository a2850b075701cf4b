"""Which parts of a benchmark are asked for."""

from collections.abc import Iterable

from pipeline.config import UserError


def known(names: str, sections: Iterable[str]) -> tuple[str, ...]:
    """The sections in "a,b", in their own order.

    :raises UserError: no such section.
    """
    wanted, there = [name for name in names.split(",") if name], list(sections)
    for name in wanted:
        if name not in there:
            raise UserError(f"--only {name}: no such section; there are {', '.join(there)}")
    return tuple(name for name in there if name in wanted)
