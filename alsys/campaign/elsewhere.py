"""Campaigns that are looked at and asked where only their mirror can be reached."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alsys.campaign.folder import CampaignFolder
from alsys.campaign.mirror import Mirror
from alsys.campaign.presence import Driver
from alsys.store import copies
from alsys.store.base import StoreWriter
from alsys.store.objects import is_url


@dataclass(frozen=True, slots=True)
class FetchedFolder(CampaignFolder):
    """A copy for reading of a campaign in object storage.

    Attributes:
        url: The campaign's mirror, through which its driver is asked.
    """

    url: str

    @property
    def place(self) -> str:
        """Its URL."""
        return self.url

    @property
    def is_here(self) -> bool:
        """Never: what a driver says of now arrives seconds later than its commits."""
        return False

    @property
    def mirror(self) -> Mirror:
        """The mirror, with the copy as its folder."""
        return Mirror.at(self.url, self.path)

    def driver(self) -> Driver | None:
        """Who drives the campaign now, wherever that is."""
        return Mirror.at(self.url, self.path).driver()

    def is_running(self) -> bool:
        """Whether a driver lives."""
        return self.driver() is not None

    def writer(self) -> tuple[int, str]:
        """Process and host of the driver; 0 and an empty text for nobody."""
        driver = self.driver()
        return (0, "") if driver is None else (driver.pid, driver.host)

    def is_writer_stopped(self) -> bool:
        """A driver that is stopped gives no sign of life."""
        return False

    def is_being_validated(self) -> bool:
        """A validation elsewhere is not seen."""
        return False

    @contextlib.contextmanager
    def written(self) -> Iterator[StoreWriter]:
        """A writer of copy and mirror, for requests to a campaign without a driver.

        Raises:
            StoreBusy: It has one.
            OSError: The disk or the storage refused.
        """
        mirror = self.mirror
        with mirror.driven(None, takes_over=False, tell=lambda _: None), copies.cached(self.url):
            mirror.asked.hear()
            with contextlib.closing(mirror.open_writer(has_files=False)) as store:
                yield store
            mirror.asked.hear()


def campaign_at(place: str) -> CampaignFolder:
    """The campaign in a folder, or a copy of the one at a URL, brought up to date.

    Args:
        place: Such as ``campaigns/ethanol`` or ``s3://bucket/ethanol``.

    Raises:
        InputError: There is none.
        EnvironmentProblem: obstore is not installed.
        StoreCorrupt: It has lost its HEAD, or a segment.
        OSError: The storage or the disk refused.
    """
    if not is_url(place):
        return CampaignFolder.existing(place)
    return FetchedFolder(local_path(place), place.rstrip("/"))


def local_path(place: str) -> Path:
    """The folder itself, or that of the copy of a URL, brought up to date.

    Raises:
        InputError: It is a URL without a campaign.
        EnvironmentProblem: obstore is not installed.
        OSError: The storage or the disk refused.
    """
    if not is_url(place):
        return Path(place)
    with copies.cached(place) as folder:
        return folder
