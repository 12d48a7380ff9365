"""The defaults; every other config is a delta on them."""

from jprotop.runs.config import get_config

__all__ = ["get_config"]
