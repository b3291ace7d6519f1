"""Watching data after training: a signed reference profile, and comparisons that know their own noise."""

from privfl_analytics.monitor.compare import compare
from privfl_analytics.monitor.drift import EXIT_CODES, DriftReport, Finding
from privfl_analytics.monitor.history import MonitorHistory, Run
from privfl_analytics.monitor.profile import Profile, SignedProfile
from privfl_analytics.monitor.study import again, profile_queries, profile_study
from privfl_analytics.monitor.thresholds import MEASURES, Limit, Thresholds

__all__ = [
    "EXIT_CODES",
    "MEASURES",
    "DriftReport",
    "Finding",
    "Limit",
    "MonitorHistory",
    "Profile",
    "Run",
    "SignedProfile",
    "Thresholds",
    "again",
    "compare",
    "profile_queries",
    "profile_study",
]
