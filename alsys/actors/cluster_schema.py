"""What Ray itself says of a file for `ray up`: its schema, and its own checks beyond. Nothing is started or asked."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alsys.errors import InputError


def schema_problems(content: Mapping[str, Any], source: str) -> Iterator[InputError]:
    """What Ray would refuse of a cluster's file, each with its field and value.

    Args:
        content: Of the file.
        source: The file.
    """
    import jsonschema
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(content))
    for error in sorted(errors, key=lambda e: [str(part) for part in e.absolute_path]):
        yield _told(error, source)
    if errors:
        return
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # advice on mounts
            validate_config(prepare_config(copy.deepcopy(dict(content))))
    except Exception as error:  # whatever Ray's checks raise is about the file
        text = " ".join(str(getattr(error, "message", error)).split())
        yield InputError(f"Ray refuses it: {text or type(error).__name__}", source=source, remedy="see Ray's `ray up`")


def _told(error: Any, source: str) -> InputError:
    field = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path).removeprefix(".")
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        (key, *_) = sorted(set(error.instance) - set(known)) or [""]
        field = f"{field}.{key}".removeprefix(".")
        return InputError(
            "is no key that Ray knows", source=source, field=field, value=error.instance.get(key),
            remedy=f"one of {', '.join(known)}" if known else "leave it out",
        )  # fmt: skip
    if error.validator == "required":
        (key, *_) = [name for name in error.validator_value if name not in error.instance]
        return InputError("is required", source=source, field=f"{field}.{key}".removeprefix("."), remedy="give it")
    value = None if isinstance(error.instance, Mapping) else error.instance
    wanted = error.validator_value if error.validator in ("type", "minimum", "enum") else error.message
    message = f"must be {wanted}" if error.validator == "type" else f"does not fit Ray's schema ({error.validator})"
    return InputError(message, source=source, field=field, value=value, remedy=f"Ray's schema says {wanted}")
