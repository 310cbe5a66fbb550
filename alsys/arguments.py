"""Arguments of public functions: one of the wrong type is an `InputError` that names it, not a `TypeError` from inside.

Types are read from annotations as they are written, ``"int | None"``: those of `KINDS`, and classes of the function's
module. What is none of them is not looked at.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from os import PathLike
from typing import Any, Final, ParamSpec, TypeVar

from alsys.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")
Check = Callable[[object], bool]


def _is_list_of_texts(value: object) -> bool:
    if not isinstance(value, Collection) or isinstance(value, str | bytes | Mapping):
        return False
    return all(isinstance(item, str) for item in value)


KINDS: Final[Mapping[str, tuple[Check, str]]] = {
    "None": (lambda value: value is None, "None"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "int": (lambda value: isinstance(value, Integral) and not isinstance(value, bool), "a whole number"),
    "float": (lambda value: isinstance(value, Real) and not isinstance(value, bool), "a number"),
    "str": (lambda value: isinstance(value, str), "text"),
    "Path": (lambda value: isinstance(value, PathLike), "a path"),
    "Sequence[str]": (_is_list_of_texts, "a list of texts"),
    "Callable[[Event], None]": (callable, "a function of one argument"),
}
"""How values of a type are known, and what they are called."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Looks at the arguments of a function before it is called.

    Raises:
        InputError: One is of the wrong type, missing, or not known.
    """
    signature, names = inspect.signature(function), getattr(function, "__globals__", {})

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            takes = ", ".join(name for name in signature.parameters if name != "self")
            raise InputError(str(error), field=function.__name__, remedy=f"it takes {takes or 'nothing'}") from None
        for name, value in given.items():
            parameter = signature.parameters[name]
            values = value if parameter.kind is inspect.Parameter.VAR_POSITIONAL else (value,)
            for one in values:
                _check(name, one, parameter, names)
        return function(*args, **kwargs)

    return call


def _check(name: str, value: object, parameter: inspect.Parameter, names: Mapping[str, Any]) -> None:
    kinds = [_kind(part.strip(), names) for part in str(parameter.annotation).split("|")]
    known = [kind for kind in kinds if kind is not None]
    if len(known) < len(kinds) or any(fits(value) for fits, _ in known):
        return
    words = list(dict.fromkeys(text for _, text in known if text != "None"))
    optional = "" if parameter.default is inspect.Parameter.empty else ", or leave it out"
    raise InputError("is of the wrong type", field=name, value=value, remedy=f"give {' or '.join(words)}{optional}")


def _kind(annotation: str, names: Mapping[str, Any]) -> tuple[Check, str] | None:
    """How a part of an annotation is known; None for what is not looked at."""
    if annotation in KINDS:
        return KINDS[annotation]
    found = names.get(annotation)
    return (lambda value: isinstance(value, found), f"`{annotation}`") if isinstance(found, type) else None
