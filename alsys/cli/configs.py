"""The campaign file named on a command line."""

from __future__ import annotations

import argparse

from alsys.config import CampaignConfig, parse_config
from alsys.config.load import read_yaml
from alsys.config.overrides import apply_overrides


def read_config(args: argparse.Namespace) -> CampaignConfig:
    """The config named on the command line, with overrides."""
    return parse_config(apply_overrides(read_yaml(args.config), args.set), source=args.config)
