"""`alsys models`: the registry from the command line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from alsys.campaign.elsewhere import campaign_at, local_path
from alsys.campaign.folder import CampaignFolder
from alsys.errors import InputError
from alsys.interop.mlflow_settings import shown
from alsys.metrics import Metrics
from alsys.store.objects import is_url
from alsys.tracking.record import kept_uri, read_record


def list_(args: argparse.Namespace) -> int:
    """Prints models and versions."""
    from alsys.tracking.mlflow import list_models

    name, uri = _registered(args)
    models = list_models(name, uri=uri)
    if args.json:
        sys.stdout.write(json.dumps([dataclasses.asdict(model) for model in models]) + "\n")
        return 0
    for model in models:
        aliases = f" [{', '.join(model.aliases)}]" if model.aliases else ""
        metrics = Metrics.read(model.metrics)
        error, n = metrics.get("force_mae_random_arm"), metrics.get("n_random")
        text = f", force MAE {error * 1e3:.1f} meV/Angstrom" if error is not None else ""
        text += f" on the {n:.0f} random-arm frames of its time" if text and n is not None else ""
        verdict = f", {model.verdict}: {model.reason}" if model.verdict == "rejected" else ""
        sys.stdout.write(f"{model.name}/{model.version}{aliases}: {model.n_labels} labels{text}{verdict}\n")
    if not models:
        sys.stdout.write("no models\n")
    return 0


def show(args: argparse.Namespace) -> int:
    """Prints one version."""
    from alsys.tracking.mlflow import show_model

    name, uri = _registered(args)
    model = show_model(name, args.version or "champion", uri=uri)
    content = dataclasses.asdict(model)
    if args.json:
        sys.stdout.write(json.dumps(content) + "\n")
    else:
        for key, value in content.items():
            sys.stdout.write(f"{key}: {value}\n")
    return 0


def train(args: argparse.Namespace) -> int:
    """Fits to a campaign's data once more, until errors on held-out frames fall no more."""
    from alsys.campaign.campaign import ANSWER_S, Campaign
    from alsys.campaign.longer_training import ask_to_train
    from alsys.cli.run import run

    if is_url(args.directory):
        directory = campaign_at(args.directory)
        sys.stdout.write(f"{ask_to_train(directory, args.budget_s, ANSWER_S)}\n")
        return 0
    campaign = Campaign.open(args.directory)
    is_running = campaign.folder.is_running()
    sys.stdout.write(f"{campaign.train(args.budget_s)}\n")
    if is_running:  # its driver does it
        return 0
    args.config, args.set, args.dry_run, args.ack_log, args.take_over = args.directory, [], False, None, False
    return run(args)


def promote(args: argparse.Namespace) -> int:
    """Makes a version champion."""
    from alsys.tracking.mlflow import promote as promote_version

    if not args.version.isdecimal():
        raise InputError("is a number in the registry", field="version", value=args.version, remedy="see `models list`")
    name, uri = _registered(args)
    promote_version(name, int(args.version), uri=uri)
    sys.stdout.write(f"{name}@champion is version {args.version}; {_alone(args.name)}\n")
    return 0


def rollback(args: argparse.Namespace) -> int:
    """Makes the previous champion champion again."""
    from alsys.tracking.mlflow import rollback as roll_back

    name, uri = _registered(args)
    version = roll_back(name, uri=uri)
    sys.stdout.write(f"{name}@champion is version {version}; {_alone(args.name)}\n")
    return 0


def publish(args: argparse.Namespace) -> int:
    """Registers a model on another server."""
    from alsys.tracking.publish import publish as publish_model

    model = publish_model(args.source, args.name, args.to, uri=args.uri)
    if args.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(model)) + "\n")
    else:
        sys.stdout.write(f"{model.name}@champion in {shown(args.to)} is version {model.version}\n")
    return 0


def pull(args: argparse.Namespace) -> int:
    """Copies a model's bundle out of a registry."""
    from alsys.cli.export import export

    args.to, args.member, args.charge, args.multiplicity = "bundle", None, None, None
    return export(args)


def release(args: argparse.Namespace) -> int:
    """Lets a registered name go to the next campaign that delivers to it."""
    from alsys.tracking.mlflow import release as let_go

    name, uri = _registered(args)
    champion = let_go(name, uri=uri)
    stays = "" if champion is None else f"; champion stays version {champion.version} until that one promotes another"
    sys.stdout.write(f"{name} belongs to the next campaign that delivers to it{stays}\n")
    return 0


def _alone(name: str) -> str:
    """What a change of the registry leaves as it is."""
    place = name if CampaignFolder(local_path(name)).is_campaign else "DIR"
    return f"in the registry alone: the campaign goes on with its own champion, `alsys rollback {place}` moves both"


def _registered(args: argparse.Namespace) -> tuple[Any, str | None]:
    """Name and registry that are meant: of a campaign's directory, those that it was last run with.

    Raises:
        InputError: The campaign is not tracked.
    """
    if args.name is None:
        return None, args.uri
    folder = local_path(args.name)
    if not CampaignFolder(folder).is_campaign:
        return args.name, args.uri
    config, record = read_record(folder)
    if not config.tracking.enabled:
        raise InputError(
            "is in no registry: tracking.enabled is false", source=args.name, remedy="`alsys status` lists its models"
        )
    return config.model_name, args.uri or kept_uri(config, record, folder)
