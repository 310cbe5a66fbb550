"""Objects whose answers are lost, or late."""

from __future__ import annotations

import time
from typing import Any

from alsys.store.objects import Objects


class LosingAnswers(Objects):
    """Objects whose requests fail: `before` they are carried out, or `after`."""

    fails: str = ""

    def _call(self, operation: str, name: str, *arguments: Any, **options: Any) -> Any:
        fails, self.fails = (self.fails, "") if operation == "put" else ("", self.fails)
        if fails == "before":
            raise OSError(5, "no answer", name)
        result = super()._call(operation, name, *arguments, **options)
        if fails == "after":
            raise OSError(5, "no answer", name)
        return result


def losing() -> LosingAnswers:
    plain = Objects.at("memory:///")
    return LosingAnswers(plain._store, "memory://")


class Dying(Objects):
    """Objects that no request reaches while `is_dead`; with `is_late`, one more is carried out before they die.

    Attributes:
        answer_s: How long the answer to a put takes, once it was carried out.
    """

    is_dead = is_late = False
    answer_s = 0.0

    def _call(self, operation: str, name: str, *arguments: Any, **options: Any) -> Any:
        if self.is_dead:
            raise OSError(5, "no answer", name)
        result = super()._call(operation, name, *arguments, **options)
        if self.is_late and operation == "put":
            self.is_late, self.is_dead = False, True
            raise OSError(5, "no answer", name)
        time.sleep(self.answer_s if operation == "put" else 0.0)
        return result

    def below(self, folder: str) -> Dying:
        raise TypeError("its folders would not die with it")


def dying() -> Dying:
    return Dying(Objects.at("memory:///")._store, "memory://")
