"""How a YAML file with dotted overrides becomes a config, and what is told when it does not.

Precedence: field default < YAML file < ``section.key=value`` on the command line. What results is
written into the run's folder as ``config.yaml``; loading that file gives the same config again.
"""

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.errors import UserError
from pipeline.config.section import Section

Schema = TypeVar("Schema", bound=Section)


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where 1e-4 is a string; here it is the number everybody means."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)$"),
    list("-+.0123456789"),
)


def load(schema: type[Schema], path: str | Path, overrides: list[str] = ()) -> Schema:
    """The config in a YAML file, changed by ``section.key=value`` words.

    :raises UserError: no such file, broken YAML, unknown key, wrong type, impossible value.
    """
    path = Path(path)
    tree = read_yaml(path)
    for word in overrides:
        _override(tree, word)
    return parse(schema, schema.completed(tree, path), str(path))


def changed(config: Schema, overrides: list[str], origin: str) -> Schema:
    """The config, changed by ``section.key=value`` words; ``origin`` stands at the head of error messages.

    :raises UserError: unknown key, wrong type, impossible value.
    """
    tree = config.model_dump()
    for word in overrides:
        _override(tree, word)
    return parse(type(config), tree, origin)


def read_yaml(path: Path) -> dict:
    """:raises UserError: no such file, not YAML, or no mapping."""
    try:
        tree = yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such config{_nearest_file(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a config is a mapping of sections, not {type(tree).__name__}")
    return tree


def parse(schema: type[Schema], tree: dict, origin: str) -> Schema:
    """A config from nested dicts; ``origin`` stands at the head of error messages.

    :raises UserError: the first thing wrong, with the key's dotted name.
    """
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        # A key that does not exist explains what is missing beside it, so it is told first.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        raise UserError(f"{origin}: {_explain(schema, first)}") from None


def dump(config: Section) -> str:
    """The resolved config as YAML; ``load`` of it gives an equal config."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all fields of a schema."""
    found = []
    for name, field in schema.model_fields.items():
        found.append(prefix + name)
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                step = "0." if get_origin(field.annotation) is list else ""
                found += keys(inner, f"{prefix}{name}.{step}")
    return found


def _override(tree: dict, word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise UserError(f"{word!r}: an override is written section.key=value")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise UserError(f"{word!r}: the value is not YAML") from None
    *sections, last = key.split(".")
    place: Any = tree
    for section in sections:
        if isinstance(place, dict) and place.get(section) is None:
            place[section] = {}
        place = _inside(place, section, word)
    if isinstance(place, list):
        _inside(place, last, word)
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise UserError(f"{word!r}: {key.rpartition('.')[0]!r} holds a value, not a section")


def _inside(place: Any, name: str, word: str) -> Any:
    if isinstance(place, dict):
        return place[name]
    if isinstance(place, list) and name.isdecimal() and int(name) < len(place):
        return place[int(name)]
    if isinstance(place, list):
        raise UserError(f"{word!r}: the list has entries 0 to {len(place) - 1}, not {name!r}")
    raise UserError(f"{word!r}: {name!r} is asked of a value, not of a section")


def _explain(schema: type[BaseModel], error: dict) -> str:
    name = ".".join(str(part) for part in error["loc"])
    name = name if name.isprintable() else repr(name)
    if error["type"] == "extra_forbidden":
        return f"{name}: no such key; {_nearest_key(schema, name)}"
    if error["type"] == "missing":
        return f"{name}: missing; give it in the file or as {name}=..."
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{name}.{message}" if name else message
    return f"{name}: {message[0].lower()}{message[1:]}, not {error['input']!r}"


def _nearest_key(schema: type[BaseModel], name: str) -> str:
    known = keys(schema)
    name = re.sub(r"\.\d+\.", ".0.", name)
    last = name.rpartition(".")[2]
    same_end = [key for key in known if key.rpartition(".")[2] == last]
    near = difflib.get_close_matches(name, known, 1) or same_end[:1]
    if same_end and (not near or near[0].rpartition(".")[2] != last):
        near = same_end[:1]
    if near:
        return f"did you mean {near[0]}?"
    section = name.rpartition(".")[0]
    beside = [key for key in known if key.rpartition(".")[0] == section]
    return f"{section or 'the top level'} has {', '.join(beside)}"


def _nearest_file(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path("configs")
    files = {str(file) for file in folder.rglob("*.yaml")} if folder.is_dir() else set()
    near = difflib.get_close_matches(str(path), files, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""
