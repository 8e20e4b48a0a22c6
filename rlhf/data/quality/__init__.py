"""What is left out of the data and why: `screen` applies data.quality, `report` counts whatever the config says."""

from rlhf.data.quality.languages import check_languages
from rlhf.data.quality.report import Duplicates, duplicates_of, leakage
from rlhf.data.quality.screen import screen

__all__ = ["Duplicates", "check_languages", "duplicates_of", "leakage", "screen"]
