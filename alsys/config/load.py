"""YAML to `CampaignConfig`, with one-line errors that name file, field, value and remedy."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from alsys.config.described import place_of, shape_of, switched
from alsys.config.groups import GROUP_NAME
from alsys.config.runtime import ADDRESS
from alsys.config.schema import MIRROR_URL, CampaignConfig
from alsys.config.section import DEVICE_NAME, NAME, NOT_INSTALLED, TOGETHER, Switch
from alsys.errors import InputError, several
from alsys.outside.contents import MAX_YAML_BYTES, QUOTES, parse_yaml, read_text

SCHEMA: Final = "see `alsys config schema`"
PATTERNS: Final[Mapping[str, tuple[str, str]]] = {
    NAME: ("is no name", "up to 63 letters, digits, `_`, `.` and `-`, no spaces, the first no sign"),
    GROUP_NAME: ("is no name of a group", "up to 31 small letters, digits and `_`, the first a letter"),
    DEVICE_NAME: ("is no device", "write auto, cpu, cuda or cuda:N"),
    MIRROR_URL: (
        "is no folder of a bucket",
        "write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX; names hold letters, digits and "
        "`_.,+=@-`, and begin with a letter, a digit or `_`",
    ),
    ADDRESS: ("is no address of Ray", "write auto or HOST:PORT, or leave it out to start Ray here"),
}
"""What is wrong with text that is not of a form, and what to do."""
_LISTS: Final = frozenset({"tuple_type", "list_type"})
_MAPPINGS: Final = frozenset({"dict_type", "model_type", "model_attributes_type"})


def load_config(path: str | Path) -> CampaignConfig:
    """Reads and validates a campaign file.

    Raises:
        InputError: One line with file, field, value and remedy.
    """
    return parse_config(read_yaml(path), source=str(path))


def read_yaml(path: str | Path) -> object:
    """The content of a campaign file, in which no key is given twice.

    Raises:
        InputError: One line with file, line and what is wrong.
    """
    path = Path(path)
    try:
        text = read_text(path, MAX_YAML_BYTES)
    except InputError as error:
        message = error.message.removeprefix("cannot be read: ")
        raise InputError(
            f"cannot read the file: {message}", source=str(path), value=error.value, remedy=error.remedy
        ) from error
    try:
        return parse_yaml(text)
    except InputError as error:
        remedy = error.remedy or SCHEMA
        raise InputError(
            error.message, source=str(path), field=error.field, value=error.value, remedy=remedy
        ) from error


def parse_config(data: object, source: str | None = None) -> CampaignConfig:
    """Validates the content of a campaign file.

    Raises:
        InputError: The first problem, in one line; the others are its notes, see `alsys.errors.several`.
    """
    if not isinstance(data, Mapping):
        raise InputError("a campaign file is a mapping of keys", source=source, remedy="see configs/toy.yaml")
    try:
        return CampaignConfig.model_validate(data)
    except ValidationError as error:
        raise several(_problems(error, source)) from None
    except RecursionError:
        raise InputError("holds itself, or sections without end", source=source, remedy=SCHEMA) from None


def science_fields(config: CampaignConfig) -> dict[str, object]:
    """The fields that are frozen once a campaign has started, flat, by dotted path."""
    flat: dict[str, object] = {}
    _collect(config, "", flat)
    return flat


def config_hash(config: CampaignConfig) -> str:
    """Digest of the science fields, 32 hexadecimal characters."""
    text = json.dumps(science_fields(config), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _collect(section: BaseModel, prefix: str, flat: dict[str, object]) -> None:
    for name, info in type(section).model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and extra.get("operational"):
            continue
        value = getattr(section, name)
        path = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            _collect(value, f"{path}.", flat)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for i, item in enumerate(value):
                _collect(item, f"{path}[{i}].", flat)
        else:
            flat[path] = list(value) if isinstance(value, tuple) else value


def _problems(error: ValidationError, source: str | None) -> list[InputError]:
    """All problems of a file, unknown keys first; of a field and its parts one."""
    found = error.errors(include_url=False)  # of a section, no word that may stand in its place
    problems = [p for p in found if p["type"] != "literal_error" or not isinstance(p["input"], Mapping)] or found
    problems = [p for p in problems if p["type"] != "missing" or not _is_explained(p, problems)]
    told: dict[tuple[str | int, ...], list[InputError]] = {}
    for problem in sorted(problems, key=lambda p: p["type"] != "extra_forbidden"):
        if problem["type"] == TOGETHER:
            told[problem["loc"]] = [
                InputError(
                    one.message, source=source, field=one.field or None, value=one.value, remedy=one.remedy or SCHEMA
                )
                for one in problem["ctx"]["problems"]
            ]
            continue
        parts = tuple(re.findall(r"[^.\[\]]+", place_of(problem["loc"]).field))
        if _kinds_with(problem):
            told.setdefault(problem["loc"][:-1], [_of_other_kind(problem, problems, source)])
            continue
        if not any(parts[: len(known)] == known or known[: len(parts)] == parts for known in told):
            told[parts] = [_told(problem, problems, source)]
    return [one for ones in told.values() for one in ones]


def _kinds_with(problem: ErrorDetails) -> list[str]:
    """Kinds of a section that have a key which its own kind has not."""
    if problem["type"] != "extra_forbidden" or len(problem["loc"]) < 3:
        return []
    *section, tag, key = problem["loc"]
    kinds = place_of(section).kinds
    return [kind for kind in kinds if tag in kinds and key in place_of((*section, kind)).keys]


def _of_other_kind(problem: ErrorDetails, problems: Sequence[ErrorDetails], source: str | None) -> InputError:
    """All keys of a section that are those of other kinds, as they stay when `--set` changes the kind alone."""
    *section, tag, _ = problem["loc"]
    found = {str(p["loc"][-1]): _kinds_with(p) for p in problems if p["loc"][:-1] == problem["loc"][:-1]}
    keys = [key for key, kinds in found.items() if kinds]
    field, others = place_of(section).field, " and ".join(_kinds_with(problem))
    return InputError(
        f"unknown key{'s' * (len(keys) > 1)} of kind `{tag}`: {', '.join(keys)} (of {others})",
        source=source, field=field,
        remedy=f"leave {'them' if keys[1:] else 'it'} out; --set '{field}={{kind: {tag}}}' replaces the whole section",
    )  # fmt: skip


def _is_explained(missing: ErrorDetails, problems: Sequence[ErrorDetails]) -> bool:
    """Whether a field is missing because its key is misspelt, or because the preset that would fill it is unknown."""
    *section, name = missing["loc"]
    beside = [(p["loc"][-1], p["type"]) for p in problems if p["loc"][:-1] == tuple(section)]
    return any(
        (kind == "extra_forbidden" and _meant(str(key), [str(name)])) or (key == "preset" and kind != "missing")
        for key, kind in beside
    )


def _meant(key: str, known: Sequence[str]) -> str:
    """The known key that a misspelt one is close to; empty for none."""
    return next(iter(difflib.get_close_matches(key, known, n=1)), "")


def _told(problem: ErrorDetails, problems: Sequence[ErrorDetails], source: str | None) -> InputError:
    """One problem in a line, with what else is said of its field."""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    place = place_of(problem["loc"])
    field, remedy = place.field, SCHEMA
    if kind == "extra_forbidden":
        known = place_of(problem["loc"][:-1]).keys
        close = _meant(str(problem["loc"][-1]), known)
        message, remedy = "unknown key", f"did you mean `{close}`?" if close else f"known keys: {', '.join(known)}"
    elif kind in ("missing", "union_tag_not_found"):
        keys = [str(key) for key in value] if kind == "union_tag_not_found" and isinstance(value, Mapping) else []
        misspelt = _meant("kind", keys)
        message, value = (f"unknown key `{misspelt}`" if misspelt else "is required"), None
        section = place_of(problem["loc"][:-1]).node.get("properties", {})
        if said := section.get(str(problem["loc"][-1]), {}).get("description", ""):
            remedy = said.rstrip(".")
        if place.kinds:
            remedy = f"{'did you mean `kind`? ' if misspelt else ''}kinds: {', '.join(place.kinds)}"
            field += ".kind" if kind == "union_tag_not_found" and not misspelt else ""
    elif kind == "union_tag_invalid":
        message, value, remedy = "unknown kind", context["tag"], f"one of {', '.join(place.kinds)}"
        field = f"{field}.kind"
    elif kind == NOT_INSTALLED:
        message, value, remedy = problem["msg"], context["value"], context["remedy"]
        field += context["key"]
    elif isinstance(value, Switch):
        (message, remedy), value = value.problem, None
    elif value is None:
        message, remedy = "is empty", f"write {shape_of(place.node, None)}, or leave it out where it has a default"
    elif kind in _LISTS:
        message, remedy = "must be a list", f"write {shape_of(place.node, value)}"
        if isinstance(value, Mapping):
            message, remedy = "must be a list, not a mapping", 'begin each entry with "- "'
    elif kind in _MAPPINGS:
        message, remedy = "must be a mapping", f"write {shape_of(place.node, value)}"
        if isinstance(value, bool):
            remedy = f"write {switched(place.node, value)}, or leave it out where it has a default"
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
            message, remedy = "must be a mapping, not a list", 'leave out the "- " or the brackets'
    elif kind == "string_pattern_mismatch" and context.get("pattern") in PATTERNS:
        message, remedy = PATTERNS[context["pattern"]]
        field = field.removesuffix(".[key]")
    elif kind == "string_type":
        message, remedy = "must be text", QUOTES
    else:
        said = dict.fromkeys(_message(p["msg"]) for p in problems if place_of(p["loc"]).field == field)
        message = " or ".join(said)
    if kind in _LISTS | _MAPPINGS and (place.kinds or place.keys):
        remedy += f"; {'kinds' if place.kinds else 'known keys'}: {', '.join(place.kinds or place.keys)}"
    if isinstance(value, Mapping) and kind != "extra_forbidden":
        value = None
    return InputError(message, source=source, field=field or None, value=value, remedy=remedy)


def _message(text: str) -> str:
    text = text.removeprefix("Value error, ").removeprefix("Input ").partition(", unable to")[0]
    text = re.sub(r" or instance of \w+", "", text)
    return text.replace("valid tuple", "list").replace("valid dictionary", "mapping")
