"""All statistics; importing this package fills the registry."""

from privfl_analytics.statistics.comparisons import Anova as Anova, TTest as TTest
