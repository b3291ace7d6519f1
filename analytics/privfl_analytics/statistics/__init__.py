"""All statistics; importing this package fills the registry."""

from privfl_analytics.statistics.comparisons import Anova as Anova
from privfl_analytics.statistics.comparisons import TTest as TTest
from privfl_analytics.statistics.covariance import Correlation as Correlation
from privfl_analytics.statistics.covariance import Covariance as Covariance
