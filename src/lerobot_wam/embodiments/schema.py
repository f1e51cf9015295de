"""Strict reading of nested frozen dataclasses from plain YAML or JSON values. Every error names the place."""

import dataclasses
import difflib
import types
import typing
from typing import Any

import yaml


class SchemaError(ValueError):
    """A value that does not fit the dataclass it was meant for."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML lets the last of two equal keys win; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of ``node``, whose keys must differ."""
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise SchemaError(f"line {node.start_mark.line + 1}: key {key!r} appears more than once: remove one")
        return super().construct_mapping(node, deep)


def load_yaml(text: str, where: str) -> Any:
    """Plain values of a YAML text; SchemaError, with the place ``where``, for bad syntax or a repeated key."""
    try:
        return yaml.load(text, _UniqueKeyLoader)
    except (yaml.YAMLError, SchemaError) as error:
        raise SchemaError(f"{where}: {error}") from error


def parse[T](kind: type[T], value: Any, where: str) -> T:
    """``value`` as an instance of ``kind``.

    Args:
        kind: a dataclass whose fields are str, int, float, bool, X | None, Literal, tuple[X, ...],
            dict[str, X] or dataclasses.
        value: the mapping that YAML or JSON gave.
        where: the value's place, for messages ("wam_sim_viperx.yaml").

    Raises:
        SchemaError: unknown or missing keys, wrong types. ValueErrors of the dataclass itself get the place
        in front.
    """
    return typing.cast(T, _parse(kind, value, where))


def _parse(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(typing.cast(type, kind), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise SchemaError(f"{where} is {value!r}, expected a list")
        return tuple(_parse(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise SchemaError(f"{where} is {value!r}, expected a mapping of names")
        return {key: _parse(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is types.UnionType:
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _parse(inner, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise SchemaError(f"{where} is {value!r}, expected one of {list(arguments)}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:  # not isinstance: a bool is no int here
        raise SchemaError(f"{where} is {value!r} ({type(value).__name__}), expected {kind.__name__}")
    return value


def _parse_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise SchemaError(f"{where} is {value!r}, expected a mapping")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in value:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(fields)}"
            raise SchemaError(f"{where} has the unknown key {key!r}: {hint}")
    required = [name for name, field in fields.items() if _is_required(field)]
    missing = [name for name in required if name not in value]
    if missing:
        raise SchemaError(f"{where} lacks {', '.join(missing)}: add them (required: {', '.join(required)})")
    hints = typing.get_type_hints(kind)
    arguments = {key: _parse(hints[key], item, f"{where}.{key}") for key, item in value.items()}
    try:
        return kind(**arguments)
    except SchemaError:
        raise
    except ValueError as error:
        raise SchemaError(f"{where}: {error}") from error


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
