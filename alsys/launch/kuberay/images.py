"""Container images: references in their parts, and those of the services beside a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from alsys.config.launch import LaunchConfig

THIRD_PARTY: Final[Mapping[str, str]] = {
    "postgres": "postgres:16-alpine@sha256:57c72fd2a128e416c7fcc499958864df5301e940bca0a56f58fddf30ffc07777",
    "prometheus": "prom/prometheus:v3.5.0@sha256:63805ebb8d2b3920190daf1cb14a60871b16fd38bed42b857a3182bc621f4996",
    "grafana": "grafana/grafana:12.3.0@sha256:70d9599b186ce287be0d2c5ba9a78acb2e86c1a68c9c41449454d0fc3eeb84e8",
}
"""By digest, which several public repositories name for these tags; deploy/compose.yaml has the same."""


@dataclass(frozen=True, slots=True)
class Image:
    """A reference to an image, as Kustomize takes it.

    Attributes:
        name: By which manifests name it.
        repository: Where it is, as ``registry.example.com/alsys``.
        tag: Empty where there is none.
        digest: Empty where there is none; with it the tag means nothing.
    """

    name: str
    repository: str
    tag: str
    digest: str

    @classmethod
    def of(cls, name: str, reference: str) -> Image:
        """Splits a reference such as ``host:5000/alsys:0.1.0`` or ``host/alsys@sha256:...``."""
        rest, _, digest = reference.partition("@")
        path, slash, last = rest.rpartition("/")
        last, _, tag = last.partition(":")
        return cls(name, path + slash + last, "" if digest else tag, digest)


def images(settings: LaunchConfig, has_gpus: bool) -> list[Image]:
    """What the names ``alsys`` and ``alsys-gpu`` in manifests stand for."""
    image = str(settings.image)
    mine = [Image.of("alsys", image)]
    return [*mine, Image.of("alsys-gpu", settings.kuberay.gpu_image or image)] if has_gpus else mine
