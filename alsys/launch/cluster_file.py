"""Checks of a file for `ray up` beyond Ray's own: strangers stay out, and a campaign's workers fit on the nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    homes: list[tuple[Group, dict[str, int]]] = []
    for bare, placed in zip(fleet.groups, fleet.placed()[0].groups, strict=True):
        offers_own = any(set(placed.resources) & set(node["resources"]) for node in types.values())
        group = placed if offers_own else bare
        held = {name: n for name, node in types.items() if (n := _holds(group, node["resources"]))}
        if not held:
            needs = ", ".join(f"{name}: {amount:g}" for name, amount in _asked(group).items())
            yield InputError(
                f"hold none of the campaign's {group.name}, one of which asks for {{{needs}}}", source=source,
                field="available_node_types", value={name: dict(node["resources"]) for name, node in types.items()},
                remedy=f"add a type with these resources, or lower {group.section}.cpus, gpus or resources",
            )  # fmt: skip
        elif (n_held := sum(n * _machines(content, name) for name, n in held.items())) < group.most:
            yield _too_few(content, source, group, held, n_held)
        else:
            homes.append((group, held))
    workers, limit = sum(_most(content, name) for name in types), int(content.get("max_workers", 2))
    left = _left(content, homes, workers)
    for group, its_homes, n in left:
        yield _too_few(content, source, group, its_homes, group.most - n, " beside its other workers")
    if limit < workers and not left and _left(content, homes, limit):
        yield InputError(
            f"is less than the {workers} machines of all types together, which the campaign's workers fill",
            source=source, field="max_workers", value=limit, remedy=f"write {workers}",
        )  # fmt: skip


def _too_few(
    content: Mapping[str, Any], source: str, group: Group, homes: Iterable[str], n: int, beside: str = ""
) -> InputError:
    head = content.get("head_node_type")
    names = [name for name in homes if name != head] or list(homes)
    return InputError(
        f"hold {n} of the campaign's {group.most} {group.name}{beside}", source=source,
        field=", ".join(f"available_node_types.{name}.max_workers" for name in names),
        value=", ".join(str(_most(content, name)) for name in names),
        remedy=f"raise it, or lower {group.section}.workers to {n}",
    )  # fmt: skip


def _left(
    content: Mapping[str, Any], homes: Sequence[tuple[Group, Mapping[str, int]]], limit: int
) -> list[tuple[Group, Mapping[str, int], int]]:
    """Groups some of whose workers find no place once all others have theirs, and how many.

    Those with the fewest types to go to are placed first, then large ones, each on the first machine with room.

    Args:
        content: Of the file.
        homes: Groups, and how many of their workers an empty machine of each type holds.
        limit: Machines at most beside the head.
    """
    types, head = content.get("available_node_types", {}), str(content.get("head_node_type"))
    begun: list[tuple[str, dict[str, float]]] = [(head, dict(types[head]["resources"]))] if head in types else []
    free = {name: _most(content, name) for name in types}
    found = []
    for group, held in sorted(homes, key=lambda home: (len(home[1]), max(home[1].values()), home[0].most)):
        n = group.most
        for name, room in begun:
            n = _fill(room, group, n) if name in held else n
        for name in sorted(held, key=held.__getitem__, reverse=True):
            while n and free[name] and limit:
                free[name], limit = free[name] - 1, limit - 1
                begun.append((name, dict(types[name]["resources"])))
                n = _fill(begun[-1][1], group, n)
        if n:
            found.append((group, held, n))
    return found


def _fill(room: dict[str, float], group: Group, n: int) -> int:
    """Places workers on a machine while there are any and it has room; how many are left."""
    placed = min(n, _holds(group, room))
    for name, amount in _asked(group).items():
        room[name] = room.get(name, 0.0) - placed * amount
    return n - placed


def _asked(group: Group) -> dict[str, float]:
    wants = {"CPU": group.machine.cpus, "GPU": group.machine.gpus, **group.resources}
    return {name: amount for name, amount in wants.items() if amount > 0}


def _holds(group: Group, resources: Mapping[str, float]) -> int:
    """Workers of a group that a node with some resources holds; memory is what Ray finds there."""
    return int(min(resources.get(name, 0) / amount + EPSILON for name, amount in _asked(group).items()))


def _most(content: Mapping[str, Any], name: str) -> int:
    """Machines of a type at most, beside the head: of its type none unless the file says so."""
    default = 0 if name == content.get("head_node_type") else content.get("max_workers", 2)
    return int(content["available_node_types"][name].get("max_workers", default))


def _machines(content: Mapping[str, Any], name: str) -> int:
    return _most(content, name) + (name == content.get("head_node_type"))
