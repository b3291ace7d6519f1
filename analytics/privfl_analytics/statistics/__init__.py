"""All statistics; importing this package fills the registry."""

from privfl_analytics.statistics.calibration import Brier as Brier
from privfl_analytics.statistics.calibration import Calibration as Calibration
from privfl_analytics.statistics.comparisons import Anova as Anova
from privfl_analytics.statistics.comparisons import TTest as TTest
from privfl_analytics.statistics.components import Components as Components
from privfl_analytics.statistics.covariance import Correlation as Correlation
from privfl_analytics.statistics.covariance import Covariance as Covariance
from privfl_analytics.statistics.discrimination import PrecisionRecall as PrecisionRecall
from privfl_analytics.statistics.discrimination import Roc as Roc
from privfl_analytics.statistics.glm import Glm as Glm
from privfl_analytics.statistics.glm import Logistic as Logistic
from privfl_analytics.statistics.glm import Poisson as Poisson
from privfl_analytics.statistics.log_rank import LogRank as LogRank
from privfl_analytics.statistics.profile import ProfileCounts as ProfileCounts
from privfl_analytics.statistics.regression import LinearRegression as LinearRegression
from privfl_analytics.statistics.survival import Survival as Survival
