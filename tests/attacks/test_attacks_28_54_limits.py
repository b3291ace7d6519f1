"""What must still work at the limits (52), and what the code's text must not do with secrets (53)."""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import pytest
from privfl_keys import digest
from privfl_keys.labels import Label

from privfl.errors import Refused
from privfl.secagg import degree_for, masks, merkle, shamir, verify_transcript
from privfl.secagg.graph import admissible, graph_seed, neighbours, prune
from tests.harness import NOW, Harness

# 52: three of ten lost at every stage; sparse graphs at nominal dropout


def epoch_with_losses(h: Harness, lost: set[bytes], stage: str) -> None:
    """E0 to the record; the ``lost`` go silent from ``stage`` on."""
    stages = ["advertise", "contribute", "confirm"]
    here = {name: [s for s in h.ids if s not in lost or stages.index(stage) > at] for at, name in enumerate(stages)}
    scope = h.coordinator.start_epoch()
    for site in here["advertise"]:
        h.coordinator.receive_advert(h.sites[site].advertise(scope.epoch))
    for site in here["contribute"]:
        h.coordinator.receive_contributions(h.sites[site].contribute(h.coordinator.adverts)[0])
    for site in here["confirm"]:
        shown = h.coordinator.contributions_for(site)
        h.coordinator.receive_confirmations(h.sites[site].confirm(shown)[0])
    record, confirmations = h.coordinator.fix_record()
    assert set(record.sites) == set(h.ids) - lost
    for site in record.sites:
        h.sites[site].join(record, confirmations, now=NOW)


@pytest.mark.parametrize("stage", ["advertise", "contribute", "confirm"])
def test_attack_52_ten_sites_lose_three_in_the_epoch_and_sum_up_the_rest(stage: str) -> None:
    """Three sites fall silent in E0, E1 or E2: the record holds the other seven and their sum opens, twice."""
    h = Harness.make(10)
    epoch_with_losses(h, set(h.ids[2:5]), stage)
    for number in (1, 2):
        total, expected, transcript = h.round((number, 0))
        assert np.array_equal(total, expected)
        assert len(verify_transcript(transcript, h.authority.verify_key).survivors) == 7


@pytest.mark.parametrize("stage", ["accept", "upload", "vote", "release"])
@pytest.mark.parametrize("first", [0, 7])
def test_attack_52_ten_sites_lose_three_in_the_slot_and_open_the_sum(stage: str, first: int) -> None:
    """Three sites fall silent at S0, S1, S2 or S3, whoever they are by position: the survivors' sum is exact."""
    h = Harness.make(10)
    h.open_epoch()
    lost = set(h.ids[first : first + 3])
    announcement = h.coordinator.announce(h.plan(), (1, 0))
    vectors = h.vectors(announcement)
    for site in h.ids:
        if site in lost and stage == "upload":
            h.sites[site].accept(announcement, now=NOW, ledger_head=bytes(32))
        elif site not in lost or stage not in ("accept", "upload"):
            h.upload(announcement, site, vectors[site])
    h.coordinator.close()
    inside = [header.site for header in h.coordinator.slot.inside()]
    assert len(inside) == (7 if stage in ("accept", "upload") else 10)
    for member, ask in h.asks().items():
        if member not in lost or stage == "release":
            h.coordinator.receive_vote(h.sites[member].vote(ask, now=NOW))
    assert h.coordinator.slot.certified
    for member, ask in h.asks().items():
        if member not in lost:
            h.coordinator.receive_release(h.sites[member].release(ask, now=NOW))
    opened, transcript = h.coordinator.finish()
    assert np.array_equal(opened.array(), sum(vectors[site] for site in inside))
    verify_transcript(transcript, h.authority.verify_key, opened)


@pytest.mark.parametrize(
    ("n", "corrupt", "dropout", "degree"),
    [(300, 0.05, 0.05, 44), (300, 0.1, 0.1, 66), (1000, 0.05, 0.05, 52), (1000, 0.1, 0.1, 96)],
)
def test_attack_52_sparse_graphs_at_nominal_dropout_pass_the_survivor_rule(
    n: int, corrupt: float, dropout: float, degree: int
) -> None:
    """The tabulated degrees: losing the nominal share at random costs no further site, in every one of 40 draws."""
    assert degree_for(n, corrupt, dropout) == degree
    sites = sorted(digest(Label.SITE_ID, at) for at in range(n))
    graph = neighbours(sites, graph_seed(bytes(32), n), degree)
    rng, least = np.random.default_rng(n), -(-2 * n // 3)
    for _ in range(40):
        kept = [sites[at] for at in rng.permutation(n)[round(n * dropout) :]]
        admissible(kept, graph, degree, least)
        assert prune(kept, graph, degree, least) == tuple(sorted(kept))
    with pytest.raises(Refused):
        prune(sites[: least - 1], graph, degree, least)


# 53: secrets select no address and no branch


@dataclass
class Taint:
    """Follows secrets through the text of one module, function by function, until nothing changes.

    A value is secret if it is computed from a secret by any expression or call; public are only
    lengths, shapes and types of secret arrays (``PUBLIC``) and hash outputs (``DECLASSIFY``). Calls
    inside the module carry secrets to the callee's parameters. What is passed as ``out=``, or in a
    call with a secret through a local variable or to a cipher context, may have been written to.
    An attribute of ``self`` is secret if it is named so, or assigned a secret in the same function.

    Found are: a secret index; a branch, loop condition, assertion, boolean operator or filter on a
    secret; a secret as an iteration count; and ``INDEXING`` functions, whose addresses or result sizes
    follow what they are given.
    """

    tree: ast.Module
    secrets: dict[str, set[str]]  # function: names of secret parameters and variables
    found: set[tuple[str, str, str]] = field(default_factory=set)  # function, kind, source text

    PUBLIC: ClassVar = frozenset({"shape", "size", "ndim", "dtype", "nbytes", "itemsize", "flags"})
    DECLASSIFY: ClassVar = frozenset({"len", "isinstance", "digest"})
    INDEXING: ClassVar = frozenset(
        {"range", "take", "searchsorted", "sorted", "sort", "argsort", "where", "unique", "compress"}
        | {"nonzero", "flatnonzero", "argwhere"}
    )

    @classmethod
    def of(cls, source: str, secrets: dict[str, set[str]]) -> Taint:
        """Analyse a module's source, from the named secret parameters on."""
        taint = cls(ast.parse(source), {name: set(names) for name, names in secrets.items()})
        size = -1
        while size != (size := sum(map(len, taint.secrets.values()))):
            for name, function in taint.functions.items():
                for node in ast.walk(function):
                    taint._spread(node, taint.secrets.setdefault(name, set()))
        for name, function in taint.functions.items():
            for node in ast.walk(function):
                taint._inspect(name, node, taint.secrets[name])
        return taint

    @cached_property
    def functions(self) -> dict[str, ast.FunctionDef]:
        """Every function and method by name."""
        return {node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)}

    def _spread(self, node: ast.AST, names: set[str]) -> None:
        if isinstance(node, ast.Assign):
            self._bind(node.targets, node.value, names)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
            self._bind([node.target], node.value, names)
        elif isinstance(node, ast.For | ast.comprehension):
            self._bind([node.target], node.iter, names)
        elif isinstance(node, ast.Call):
            self._call(node, names)

    def _bind(self, targets: list[ast.expr], value: ast.expr, names: set[str]) -> None:
        for target in targets:
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
                for one, its in zip(target.elts, value.elts, strict=True):
                    self._bind([one], its, names)
            elif self.secret(value, names):
                names |= _receivers(target)

    def _call(self, node: ast.Call, names: set[str]) -> None:
        callee, words = self.functions.get(_called(node)), {word.arg: word.value for word in node.keywords}
        if callee is not None:
            inner = self.secrets.setdefault(callee.name, set())
            parameters = [one.arg for one in (*callee.args.posonlyargs, *callee.args.args) if one.arg != "self"]
            inner |= {p for p, value in zip(parameters, node.args, strict=False) if self.secret(value, names)}
            inner |= {word for word, value in words.items() if word and self.secret(value, names)}
            return
        held = isinstance(node.func, ast.Name) and node.func.id not in _MODULE_LEVEL
        if self.secret(node, names):
            written = [words["out"]] if "out" in words else []
            written += node.args if held or _called(node) in ("update_into", "copyto") else []
            if isinstance(node.func, ast.Attribute) and node.func.attr in ("append", "extend", "update", "fill"):
                written.append(node.func.value)
            for argument in written:
                names |= _receivers(argument)

    def secret(self, node: ast.expr, names: set[str]) -> bool:
        """Whether an expression's value depends on a secret."""
        if isinstance(node, ast.Name):
            return node.id in names
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return ast.unparse(node) in names
            return node.attr not in self.PUBLIC and self.secret(node.value, names)
        if isinstance(node, ast.Call) and _called(node) in self.DECLASSIFY:
            return False
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp):
            return self.secret(node.elt, names)
        children = [child.value if isinstance(child, ast.keyword) else child for child in ast.iter_child_nodes(node)]
        return any(self.secret(child, names) for child in children if isinstance(child, ast.expr))

    def _inspect(self, name: str, node: ast.AST, names: set[str]) -> None:
        tests: list[tuple[str, ast.expr]] = []
        if isinstance(node, ast.Subscript):
            tests.append(("index", node.slice))
        elif isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
            tests.append(("branch", node.test))
        elif isinstance(node, ast.BoolOp):
            tests += [("branch", value) for value in node.values[:-1]]
        elif isinstance(node, ast.comprehension):
            tests += [("branch", condition) for condition in node.ifs]
        elif isinstance(node, ast.Match):
            tests.append(("branch", node.subject))
        elif isinstance(node, ast.Call) and _called(node) in self.INDEXING:
            tests += [("index", argument) for argument in node.args]
        for kind, test in tests:
            if self.secret(test, names):
                self.found.add((name, kind, ast.unparse(test)))


_MODULE_LEVEL = frozenset(dir(builtins)) | {"Cipher", "Keystream", "MaskStream", "CipherContext"}


def _called(node: ast.Call) -> str:
    """The last name of what is called."""
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _receivers(target: ast.expr) -> set[str]:
    """The variables, or attributes of self, that take up what is written to ``target``; never its indices."""
    if isinstance(target, ast.Name):
        return {target.id}
    if isinstance(target, ast.Attribute):
        return {ast.unparse(target)} if ast.unparse(target.value) == "self" else _receivers(target.value)
    if isinstance(target, ast.Subscript | ast.Starred):
        return _receivers(target.value)
    if isinstance(target, ast.Tuple | ast.List):
        return set().union(*map(_receivers, target.elts))
    return set()


SHAMIR = {"split": {"secrets", "entropy"}, "recover": {"shares"}, "recover_checked": {"shares"}}
MASKS = {
    "__init__": {"key"},
    "read_into": {"self._context", "out", "view"},  # views of one buffer are named, the analysis knows no aliases
    "expand": {"key", "out"},
    "_one_pass": {"stream", "scratch"},
    "apply_masks": {"acc", "plus", "minus"},
    "_context_at": {"key"},
}
MERKLE = {"leaf_key": {"salt"}, "leaves": {"key", "shares"}, "leaf": {"key", "share"}}

# Each is about a value that is thrown away or published at once; everything else must be free of them.
ACCEPTED = {
    # drawing again where a draw equals p: only the rejected draw shows, and it is never used
    ("_uniform", "index", "values == PRIME"),
    ("_uniform", "index", "again"),
    # recover() reports that shares are no sharing at all, which the coordinator publishes
    ("recover", "branch", "not valid.all()"),
    ("recover", "branch", "bool((shares >= PRIME).any())"),
}


@pytest.mark.parametrize(
    ("module", "secrets"), [(shamir, SHAMIR), (masks, MASKS), (merkle, MERKLE)], ids=["shamir", "masks", "merkle"]
)
def test_attack_53_no_index_and_no_branch_depends_on_a_secret(module: object, secrets: dict[str, set[str]]) -> None:
    """Cache and branch timing: in the text of the primitives, secrets reach no subscript and no condition."""
    taint = Taint.of(inspect.getsource(module), secrets)  # type: ignore[arg-type]
    assert taint.found - ACCEPTED == set()
    reached = {name for name, names in taint.secrets.items() if names}
    assert reached >= set(secrets), "the analysis must reach every function that it claims to speak for"
    if module is shamir:
        assert reached >= {"_to_limbs", "_from_limbs", "_product", "_canonical", "_fold", "_draw", "_uniform"}
        assert {"_points", "_powers", "_weights_at_zero", "_row_blocks"}.isdisjoint(reached)
    if module is masks:
        assert "_one_pass" in reached


def test_attack_53_every_accepted_exception_is_still_there() -> None:
    """The list of exceptions holds nothing that the code no longer does."""
    assert Taint.of(inspect.getsource(shamir), SHAMIR).found >= ACCEPTED


LEAKS: dict[str, Callable[[str], str]] = {
    "a table indexed by bytes": lambda s: s.replace(
        "    limbs = words & ((1 << _LIMB_BITS) - 1)\n", "    limbs = TABLE[words & 255]\n"
    ),
    "a branch per value": lambda s: s.replace(
        "    folded = values & PRIME\n", "    folded = values & PRIME if values[0, 0] else values\n"
    ),
    "a reduction loop": lambda s: s.replace(
        "    folded += values\n", "    folded += values\n    while (folded >= PRIME).any(): folded -= PRIME\n"
    ),
    "skipping zero coefficients": lambda s: s.replace(
        "    halves = _row_blocks(", "    values = values[values != 0]\n    halves = _row_blocks("
    ),
    "stopping at the first wrong limb": lambda s: s.replace(
        "    valid = in_field & in_range\n", "    valid = in_field and in_range\n"
    ),
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS.keys())
def test_attack_53_the_analysis_sees_leaks_that_are_put_into_the_real_code(leak: Callable[[str], str]) -> None:
    """Five leaks written into the text of the Shamir module are each found."""
    source = inspect.getsource(shamir)
    leaky = leak(source)
    assert leaky != source, "the text to change is gone; choose another place"
    assert Taint.of(leaky, SHAMIR).found - ACCEPTED
