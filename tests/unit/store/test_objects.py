"""What a bucket that refuses is said to refuse for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alsys.campaign.mirror import Mirror
from alsys.errors import InputError
from alsys.store.objects import NO_BUCKET, Objects

NO_SUCH_BUCKET = """Generic S3 error: Error performing list request: Server returned non-2xx status code: 404 Not Found:
<?xml version="1.0"?> <Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>

Debug source: Generic { store: "S3" }"""


class Refusing(Objects):
    """Objects of which each request is answered with one text."""

    text = ""

    def _call(self, operation: str, name: str, *arguments: Any, **options: Any) -> Any:
        raise self._refused(name, Exception(self.text))

    def holds_any(self, folder: str) -> bool:
        return bool(self._call("list", folder))

    def below(self, folder: str) -> Refusing:
        objects = Refusing(self._store, f"{self.url}/{folder}")
        objects.text = self.text
        return objects


def refusing(text: str) -> Refusing:
    objects = Refusing(Objects.at("memory:///")._store, "s3://bucket/prefix")
    objects.text = text
    return objects


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NO_SUCH_BUCKET, "NoSuchBucket: The specified bucket does not exist"),
        ("x <Error><Code>SlowDown</Code></Error>", "SlowDown: the server says no more"),
        ("PUT http://169.254.169.254/latest/api/token: 403", "no credentials were found"),
        ("connection refused\nDebug source: secret", "connection refused"),
    ],
)
def test_a_refusal_is_one_line_in_the_words_of_the_server(text: str, words: str) -> None:
    with pytest.raises(OSError, match=words) as caught:
        refusing(text).get("a")
    assert "\n" not in str(caught.value)
    assert "<" not in str(caught.value)
    assert (caught.value.errno == NO_BUCKET) is ("NoSuchBucket" in text)
    assert not isinstance(caught.value, FileNotFoundError), "which means an object that is not there yet"


def test_a_bucket_that_is_not_there_is_bad_input_and_an_outage_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such bucket"):
        Mirror(refusing(NO_SUCH_BUCKET), tmp_path).check_place()
    with pytest.raises(OSError, match="connection refused"):
        Mirror(refusing("connection refused"), tmp_path).check_place()
