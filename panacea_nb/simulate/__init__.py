"""Raw LRS2 nights of full size with known truth, for the demo, tests and benchmarks."""

from __future__ import annotations

from .command import HELP, add_arguments, run
from .night import simulate_night
from .scenario import SCENARIOS, Scenario, ScenarioError, Target, scenario
from .truth import ChannelTruth, ExposureTruth, TruthError, load_channel, load_exposure, load_manifest

__all__ = [
    "HELP",
    "SCENARIOS",
    "ChannelTruth",
    "ExposureTruth",
    "Scenario",
    "ScenarioError",
    "Target",
    "TruthError",
    "add_arguments",
    "load_channel",
    "load_exposure",
    "load_manifest",
    "run",
    "scenario",
    "simulate_night",
]
