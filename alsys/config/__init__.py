"""Campaign files: schema, loading, and the difference between science and operational fields."""

from alsys.config.load import load_config, parse_config, science_fields
from alsys.config.schema import CampaignConfig

__all__ = ["CampaignConfig", "load_config", "parse_config", "science_fields"]
