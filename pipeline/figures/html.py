"""A page that is one file: no address outside it, pictures inline, light and dark, wide and narrow."""

import base64
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2

from pipeline.figures.style import DARK, LIGHT

Plots = dict[str, dict[str, bytes]]
"""PNG by plot's name, then by look; a sheet of pictures has the light look only."""


def rendered(folder: Path, plots: Plots, **values: Any) -> str:
    """``page.html.j2`` of a folder with these values; pictures inline, and the themes' colours.

    :raises jinja2.UndefinedError: the template asks for a value that is not given.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        themes={"light": asdict(LIGHT), "dark": asdict(DARK)},
        plots={name: {look: data_uri(png) for look, png in looks.items()} for name, looks in plots.items()},
        **values,
    )


def data_uri(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
