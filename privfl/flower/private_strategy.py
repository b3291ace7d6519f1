"""The server's line: ``PrivateStrategy(FedAvg(), clip=…, epsilon=…)`` runs a strategy behind secure aggregation.

Its ``start`` is Flower's; what is behind it is privfl's coordinator, whose folder, policy and sites decide what may be
asked. The wrapped strategy words the calls, and aggregates one reply in each round: the average of all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from privfl.clock import SystemClock
from privfl.codec import encode
from privfl.dp import Trust
from privfl.errors import Misuse, PrivflError, Refused, WireError
from privfl.flower.courier import Courier
from privfl.flower.private_records import arrays_of, record_of
from privfl.flower.private_rules import check_strategy
from privfl.flower.private_server import EvaluateFn, StrategyServer
from privfl.flower.resident import passphrase as passphrase_of_environment
from privfl.flower.server import HOME, HOME_VARIABLE, PACE, Leash, RunOver
from privfl.homes.coordinator import CoordinatorHome, OpenCoordinator
from privfl.learn.update_inputs import Ask, shapes_of
from privfl.learn.update_plan import SHARE
from privfl.learn.update_schema import app_schema
from privfl.learn.update_spec import EXAMPLES, UpdateSpec, bounded
from privfl.runtime.coordinator_process import CoordinatorProcess, Pace
from privfl.runtime.fit import PrivacyReport, Transcripts
from privfl.runtime.status import write_notes
from privfl.runtime.update_jobs import Request, UpdateJobs, compile_update, find_job, run_job
from privfl.runtime.update_run import UpdateFit, UpdateRow
from privfl.wires.flower import spool_of
from privfl.wires.settings import FlowerSettings

__all__ = ["PrivateResult", "PrivateStrategy"]

log = logging.getLogger("privfl.flower")

_NOT_ALONE = "PrivateStrategy is no part of another strategy: it runs the whole loop; call its start()"


@dataclass(repr=False)
class PrivateResult(Result):
    """Flower's result, and what it cost.

    Metrics of evaluation belong to the model after the round that is their key, as in Flower; key 0 is the first model.

    Attributes:
        privacy: what the run cost. transcripts: a proof of every round; ``verify()`` needs no secret.
        history: all public figures by model. stopped: why it ended. folder: where all of this is kept.
    """

    privacy: PrivacyReport | None = None
    transcripts: Transcripts | None = None
    history: tuple[UpdateRow, ...] = ()
    stopped: str = ""
    folder: Path | None = None
    fit: UpdateFit | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"{super().__repr__()}\nPrivacy:\n\t{self.privacy!r}\n\t{self.stopped}\n"


class PrivateStrategy(Strategy):
    """A weighted-average strategy behind secure aggregation, noise at the sites, their policy and their ledgers.

    Args:
        strategy: FedAvg, FedAvgM, FedAdam, FedYogi, FedAdagrad or FedProx, or one that aggregates as they do.
        clip: C; each site's whole change of the model is cut to this L2 norm.
        epsilon, delta: promise of the whole run, counted in the unit of the policy. Without noise: ``unprotected``.
        max_examples: W; a site's weight is its number of examples, at most W. Not with ``weights="equal"``.
        weights: ``examples``, or ``equal``: all sites weigh the same, and the mean is over all of them.
        metrics: of the evaluation, name → bounds (low, high). train_metrics: of training, likewise. Others never leave.
        context: of the ServerApp; its run configuration names the coordinator's folder, ``privfl-coordinator``.
        home: that folder, if not by ``context`` or PRIVFL_COORDINATOR. passphrase: of its key store; by default
            PRIVFL_PASSPHRASE, or the file PRIVFL_PASSPHRASE_FILE.
        mode: voted, complete, or auto (complete for three sites). min_survivors: least sites in a sum.
        trust: distributed or local noise. bits: width of the ring, 16, 20, 32 or 64; by default 32.
        metrics_share: part of the budget for each of the two blocks of weights and metrics.
        final_evaluation: one more slot, of metrics alone, for the last model.
        spare: uploads beyond the rounds, for attempts that had to be repeated; by default one for every ten rounds.
        attempts: tries of one round. weighted_average: says of an unknown strategy that it needs the average alone.
        unprotected: no noise at all; the result itself then carries no privacy.
        schema: file of the schema, where the policy pins one. resume: go on with a stopped run that asked the same.
        courier: further settings of :class:`~privfl.flower.courier.Courier`. pace: how long is waited.

    Raises:
        Refused: the strategy needs single updates. Misuse: anything else that cannot be.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        clip: float,
        epsilon: float | None = None,
        delta: float | None = None,
        max_examples: int | None = None,
        weights: str = EXAMPLES,
        metrics: Mapping[str, tuple[float, float]] | None = None,
        train_metrics: Mapping[str, tuple[float, float]] | None = None,
        context: Context | None = None,
        home: str | Path | None = None,
        passphrase: str | None = None,
        mode: str = "auto",
        min_survivors: int | None = None,
        trust: Trust | str = Trust.DISTRIBUTED,
        bits: int | None = None,
        metrics_share: float = float(SHARE),
        final_evaluation: bool = False,
        spare: int | None = None,
        attempts: int = 3,
        weighted_average: bool = False,
        unprotected: bool = False,
        schema: str | Path | None = None,
        resume: bool = True,
        courier: Mapping[str, Any] | None = None,
        pace: Pace | None = None,
    ) -> None:
        check_strategy(strategy, weighted_average=weighted_average)
        if unprotected != (epsilon is None) or (epsilon is None) != (delta is None):
            raise Misuse(
                "give epsilon and delta, the promise of the whole run; or unprotected=True, and neither: then secure "
                "aggregation hides single sites, and nothing protects what the result says"
            )
        try:
            self._trust = Trust(trust)
        except ValueError:
            raise Misuse(f"trust is {trust!r}; choose {' or '.join(Trust)}") from None
        if mode not in ("auto", "voted", "complete"):
            raise Misuse(f"mode is {mode!a:.40}; choose voted, complete or auto")
        if attempts < 1 or (spare is not None and spare < 0):
            raise Misuse("attempts is at least 1, and spare at least 0")
        self.strategy, self._clip, self._epsilon, self._delta = strategy, float(clip), epsilon, delta
        self._weights, self._cap = weights, 0 if max_examples is None else int(max_examples)
        self._metrics, self._train_metrics = bounded(metrics or {}), bounded(train_metrics or {})
        self._context, self._home, self._word, self._schema = context, home, passphrase, schema
        self._mode, self._least, self._bits = mode, min_survivors, bits
        self._share, self._final, self._spare = Fraction(str(metrics_share)), final_evaluation, spare
        self._attempts, self._known, self._resume = attempts, weighted_average, resume
        self._courier, self._pace = dict(courier or {}), pace

    # -- Flower's own steps, which nobody but start() may take -------------------------------------------

    def configure_train(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises Refused: this is no part of another strategy."""
        raise Refused(_NOT_ALONE)

    configure_evaluate = aggregate_train = aggregate_evaluate = configure_train

    def summary(self) -> None:
        """Log what is promised, and the wrapped strategy's own summary."""
        promise = "no noise" if self._epsilon is None else f"epsilon {self._epsilon:g}, delta {self._delta:g}"
        log.info("private %s: clip %g, %s", type(self.strategy).__name__, self._clip, promise)
        self.strategy.summary()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> PrivateResult:
        """Run the strategy; see Flower's ``Strategy.start``.

        A run that was stopped goes on where it was when the same is asked again: same question, first model and
        configurations. ``timeout`` is how long one phase of a round waits for the last sites.

        Raises:
            Misuse, Refused, BudgetExceeded: it cannot be run so; no site was asked for an upload.
            RoundAborted: the first round could not be opened; later ones end the run, and ``stopped`` says why.
            WireError: the Flower run ended before the training did.
        """
        self.summary()
        folder, clock = self._folder(), SystemClock()
        word = passphrase_of_environment(folder) if self._word is None else self._word
        with CoordinatorHome.open(folder, word, clock.now()) as home:
            settings = home.wire
            if not isinstance(settings, FlowerSettings):
                raise Misuse(
                    f"the coordinator in {home.folder} speaks over {settings}; have it join again with a "
                    "federation.yaml that has 'kind: flower': privfl coordinator join --wire"
                )
            configs = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
            live = self._live(home, initial_arrays, num_rounds, configs, evaluate_fn)
            pace = self._pace or Pace(PACE.gather, int(timeout * 1000), PACE.grace, PACE.wire, int(timeout * 1000))
            usual = {"poll": float(settings.poll), "tell": partial(write_notes, home.folder)}
            spool = spool_of(home.folder)
            courier = Courier(grid, spool, home.party.id, home.party.roster, **{**usual, **self._courier})
            home.mailbox.close()
            home.mailbox = Leash(spool, home.party.id, lambda: bool(courier.ended))
            process = CoordinatorProcess(home, clock, pace=pace)
            job = find_job(process, live, _told(self.strategy, configs), clock.now(), resume=self._resume)
            try:
                with courier:
                    fit = run_job(process, job)
            except RunOver:
                process.end()
                raise WireError(f"{courier.ended}; run the app again, and it goes on") from None
            except PrivflError as error:
                process.end(str(error))
                if courier.ended:
                    raise WireError(f"{courier.ended}; run the app again, and it goes on") from error
                hints = "; ".join(f"{who}: {words}" for who, words in courier.problems.items())
                if hints:
                    log.error("%s", hints)
                raise
            finally:
                write_notes(home.folder, ())
            process.end()
        return _result(fit, job.result)

    def _live(
        self,
        home: OpenCoordinator,
        initial: ArrayRecord,
        rounds: int,
        configs: tuple[ConfigRecord, ConfigRecord],
        evaluate_fn: EvaluateFn | None,
    ) -> UpdateJobs:
        if rounds < 1:
            raise Misuse(f"num_rounds is {rounds}; train at least one")
        roster, arrays = home.party.roster, arrays_of(initial)
        sites = len(roster.site_ids)
        check_strategy(self.strategy, weighted_average=self._known, sites=sites)
        evaluates = getattr(self.strategy, "fraction_evaluate", 1.0) != 0 and bool(self._metrics)
        if self._metrics and not evaluates:
            raise Misuse("metrics of an evaluation are declared, and fraction_evaluate is 0; drop one of the two")
        key = str(getattr(self.strategy, "weighted_by_key", "num-examples"))
        shapes = shapes_of(arrays)
        spec = UpdateSpec(
            shapes, self._clip, self._weights, self._cap, key, self._train_metrics, self._metrics, evaluates
        )
        spare = rounds // 10 if self._spare is None else self._spare
        request = Request(
            spec,
            self._epsilon,
            self._delta,
            rounds,
            self._final,
            spare if self._epsilon is not None else rounds * self._attempts,
            self._attempts,
            self._mode,
            self._least,
            self._trust,
            self._bits,
            self._share,
        )
        compiled = compile_update(request, app_schema(home.policy, self._pinned()), roster, home.policy)
        _check_kind(home, self._clip)
        _say_noise(compiled.question, self._clip)
        server = StrategyServer(
            self.strategy,
            sites,
            rounds,
            evaluates=evaluates,
            weighted_by=key,
            train_config=configs[0],
            evaluate_config=configs[1],
            evaluate_fn=evaluate_fn,
        )
        first = {shape.name: arrays[shape.name].astype(shape.dtype) for shape in shapes}
        return UpdateJobs(compiled, server, first)

    def _pinned(self) -> Path | None:
        return None if self._schema is None else Path(self._schema).expanduser()

    def _folder(self) -> Path:
        run = {} if self._context is None else self._context.run_config
        named = self._home or run.get(HOME) or os.environ.get(HOME_VARIABLE)
        if not named:
            raise Misuse(
                f"no coordinator is named: give PrivateStrategy(context=context) and flwr run --run-config "
                f"'{HOME}=\"/path/of/the/coordinator\"', or set {HOME_VARIABLE} where the SuperLink is started"
            )
        return Path(str(named)).expanduser()


def _check_kind(home: OpenCoordinator, clip: float) -> None:
    """The sites would refuse it; said here, nobody is troubled."""
    allowed = home.policy.tasks.get("update")
    if allowed is None:
        raise Refused(
            "the policy does not allow an app's own training; compliance allows it by 'tasks: {update: {clip: …}}'"
        )
    if clip > allowed.clip:
        raise Refused(f"the policy allows a clip of at most {allowed.clip:g} for update and {clip:g} is asked for")


def _say_noise(question: Any, clip: float) -> None:
    """Before anything is charged: how the noise compares with what it hides, in public figures."""
    if not question.noise_norm:
        return
    log.info("the noise on a round's mean change has a norm of about %.3g; the change itself at most %g",
             question.noise_norm, clip)  # fmt: skip
    if question.spec.weighted:
        sd = question.noise("train") * question.sites**0.5 / (1 << question.grain.fine)
        if sd > question.sites / 10:
            log.warning(
                "the noise on the sum of weights is %.2g full weights, of %d sites at most: with weights='equal' the "
                "mean is over the public number of sites instead", sd, question.sites
            )  # fmt: skip


def _told(strategy: Strategy, configs: tuple[ConfigRecord, ConfigRecord]) -> bytes:
    """What makes two runs the same beside question and model: the strategy's plain settings, and the configurations."""
    plain: dict[str, Any] = {
        name: value
        for name, value in sorted(vars(strategy).items())
        if isinstance(value, bool | int | float | str) and not name.startswith("_")
    }
    asks = [Ask("train", (("m", None), ("c", dict(record)))).to_value() for record in (ConfigRecord(plain), *configs)]
    return encode((type(strategy).__name__, *asks))


def _result(fit: UpdateFit, folder: Path) -> PrivateResult:
    if fit.figures("")["stopped_early"]:
        log.warning("%s", fit.stopped)
    found = PrivateResult(
        arrays=record_of(fit.arrays),
        privacy=fit.privacy,
        transcripts=fit.transcript,
        history=tuple(fit.history),
        stopped=fit.stopped,
        folder=folder,
        fit=fit,
    )
    for row in fit.history:
        for metrics, place in (
            (row.train, found.train_metrics_clientapp),
            (row.evaluate, found.evaluate_metrics_clientapp),
            (row.held, found.evaluate_metrics_serverapp),
        ):
            if metrics:
                place[row.round] = MetricRecord(dict(metrics))
    return found
