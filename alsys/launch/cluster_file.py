"""Checks of a file for `ray up` beyond Ray's own: strangers stay out, and a campaign's workers fit on the nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from alsys.errors import InputError
from alsys.launch.fleet import Fleet, Group
from alsys.launch.packing import EPSILON

EVERYBODY: Final = ("0.0.0.0/0", "::/0")
STARTS: Final = ("head_start_ray_commands", "worker_start_ray_commands")
START: Final = "ray start"
TOKEN_FILE: Final = ".ray/auth_token"
OPEN_HOST: Final = re.compile(r"--dashboard-host[= ]['\"]?(0\.0\.0\.0|::|\*)")


def openness_problems(content: Mapping[str, Any], source: str) -> Iterator[InputError]:
    """What lets strangers in: Ray without a token, or ports that are open to all.

    Args:
        content: Of a file that fits Ray's schema.
        source: The file.
    """
    yield from _token_problems(content, source)
    provider = content.get("provider", {})
    if provider.get("type") == "aws":
        yield from _security_group_problems(provider, source)
    if provider.get("type") == "gcp":
        for name, node in content.get("available_node_types", {}).items():
            if "networkInterfaces" not in node.get("node_config", {}):
                yield InputError(
                    "is missing, so the project's default network is taken, whose rules open SSH to everybody",
                    source=source, field=f"available_node_types.{name}.node_config.networkInterfaces",
                    remedy="name a subnetwork with rules of your own, as `alsys launch --on ray` does",
                )  # fmt: skip


def _token_problems(content: Mapping[str, Any], source: str) -> Iterator[InputError]:
    for field in STARTS:
        commands = content.get(field) or []
        starts = [(i, *command.partition(START)) for i, command in enumerate(commands) if START in command]
        if not starts:
            yield InputError(
                "starts no Ray that asks for a token: Ray's own default would be taken", source=source, field=field,
                remedy="give `RAY_AUTH_MODE=token ray start ...`",
            )  # fmt: skip
        for i, before, _, after in starts:
            if "RAY_AUTH_MODE=token" not in before:
                yield InputError(
                    "starts a Ray that asks nobody for a token", source=source, field=f"{field}[{i}]",
                    value=START + after, remedy="put RAY_AUTH_MODE=token before `ray start`",
                )  # fmt: skip
            if OPEN_HOST.search(after):
                yield InputError(
                    "opens the dashboard on all addresses", source=source, field=f"{field}[{i}]", value=START + after,
                    remedy="write --dashboard-host=127.0.0.1; `ray dashboard` forwards it",
                )  # fmt: skip
    mounts = content.get("file_mounts") or {}
    if not any(str(place).endswith(TOKEN_FILE) for place in mounts):
        yield InputError(
            "brings no token to the machines", source=source, field="file_mounts",
            remedy=f"add /home/USER/{TOKEN_FILE}: ~/{TOKEN_FILE}, which `ray get-auth-token --generate` makes",
        )  # fmt: skip


def _security_group_problems(provider: Mapping[str, Any], source: str) -> Iterator[InputError]:
    group = provider.get("security_group")
    if not group or "GroupName" not in group:
        yield InputError(
            "is missing, so Ray makes one that opens SSH to everybody", source=source, field="provider.security_group",
            remedy="name one that has rules: {GroupName: NAME}",
        )  # fmt: skip
        return
    if "IpPermissions" in group:
        yield InputError(
            "has Ray make the group, which then opens SSH to everybody too", source=source,
            field="provider.security_group.IpPermissions", remedy="make a group with rules, and give GroupName alone",
        )  # fmt: skip
    for i, rule in enumerate(group.get("IpPermissions") or []):
        ranges = [*rule.get("IpRanges", []), *rule.get("Ipv6Ranges", [])]
        for address in (value for one in ranges for value in one.values()):
            if address in EVERYBODY:
                ports = f"{rule.get('FromPort', 'all')} to {rule.get('ToPort', 'all')}"
                yield InputError(
                    f"opens ports {ports} to the whole internet", source=source,
                    field=f"provider.security_group.IpPermissions[{i}]", value=address, remedy="give your own address",
                )  # fmt: skip


def fleet_problems(content: Mapping[str, Any], fleet: Fleet, source: str) -> Iterator[InputError]:
    """Workers of a campaign that would wait for ever on a cluster.

    Args:
        content: Of a file that fits Ray's schema.
        fleet: What the campaign asks for.
        source: The file.
    """
    types = {
        name: node
        for name, node in content.get("available_node_types", {}).items()
        if name != content.get("head_node_type") or node["resources"].get("CPU", 1)
    }
    placed = fleet.placed()[0]
    for bare, group in zip(fleet.groups, placed.groups, strict=True):
        offers_own = any(set(group.resources) & set(node["resources"]) for node in types.values())
        asked = group if offers_own else bare
        homes = {name: _holds(asked, node["resources"]) for name, node in types.items()}
        homes = {name: n for name, n in homes.items() if n}
        needs = ", ".join(f"{name}: {amount:g}" for name, amount in _asked(asked).items())
        if not homes:
            yield InputError(
                f"hold none of the campaign's {group.name}, one of which asks for {{{needs}}}", source=source,
                field="available_node_types", value={name: dict(node["resources"]) for name, node in types.items()},
                remedy=f"add a type with these resources, or lower {group.section}.cpus, gpus or resources",
            )  # fmt: skip
            continue
        held = sum(n * _most(content, types[name]) for name, n in homes.items())
        if held < group.most:
            fields = ", ".join(f"available_node_types.{name}.max_workers" for name in homes)
            yield InputError(
                f"hold {held} of the campaign's {group.most} {group.name}", source=source, field=fields,
                value=", ".join(str(_most(content, types[name])) for name in homes),
                remedy=f"raise it, or lower {group.section}.workers to {held}",
            )  # fmt: skip
    most = sum(_most(content, node) for node in types.values())
    if content.get("max_workers", 2) < most and not _is_enough(content, placed, types):
        yield InputError(
            f"is less than the {most} machines of all types together, which the campaign's workers fill", source=source,
            field="max_workers", value=content.get("max_workers", 2), remedy=f"write {most}",
        )  # fmt: skip


def _is_enough(content: Mapping[str, Any], fleet: Fleet, types: Mapping[str, Any]) -> bool:
    """Whether as many machines as there may be hold all workers, each group on the type that takes most of it."""
    needed = 0
    for group in fleet.groups:
        each = max((_holds(group, node["resources"]) for node in types.values()), default=0)
        needed += -(-group.most // each) if each else 0
    return needed <= int(content.get("max_workers", 2))


def _asked(group: Group) -> dict[str, float]:
    wants = {"CPU": group.machine.cpus, "GPU": group.machine.gpus, **group.resources}
    return {name: amount for name, amount in wants.items() if amount > 0}


def _holds(group: Group, resources: Mapping[str, float]) -> int:
    """Workers of a group that a node with some resources holds; memory is what Ray finds there."""
    return int(min(resources.get(name, 0) / amount + EPSILON for name, amount in _asked(group).items()))


def _most(content: Mapping[str, Any], node: Mapping[str, Any]) -> int:
    return int(node.get("max_workers", content.get("max_workers", 2)))
