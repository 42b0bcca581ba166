"""The order of tests, another one in each run: what passes only after another test is found out.

Modules, and the tests in each, come in an order that a seed draws. Each run prints its seed, and `--order-seed N` draws
the same order again, also for a part of the tests; `--order-seed 0` leaves them as they are written. What drives real
sandboxes keeps its order: its tests go through the life of one daemon after the other.
"""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.kinds import kind
from tests.parallel import is_worker

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

_SEED = pytest.StashKey[int]()
_MOST = 10**6


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the seed."""
    parser.getgroup("order").addoption(
        "--order-seed", type=int, metavar="N", help="draw the order of another run; 0: as written"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Draw a seed where none is given; the workers of a run have the run's."""
    if is_worker(config):
        config.stash[_SEED] = config.workerinput["order seed"]  # type: ignore[attr-defined]
    else:
        given = config.getoption("--order-seed")
        drawn = 1 + int.from_bytes(os.urandom(4), "big") % _MOST
        config.stash[_SEED] = drawn if given is None else given
        config.pluginmanager.register(_Seed(config.stash[_SEED]))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests into the order of the seed, before pytest brings together what shares a fixture's parameter."""
    if seed := config.stash[_SEED]:
        items[:] = ordered(items, seed)


def ordered(items: list[pytest.Item], seed: int) -> list[pytest.Item]:
    """Return the tests in the order that a seed draws, module by module; what drives sandboxes last, as it is."""
    fixed = [item for item in items if kind(item) == "sandbox"]
    kept = set(fixed)
    drawn = sorted((item for item in items if item not in kept), key=lambda item: _place(item, seed))
    return [*drawn, *fixed]


def _place(item: pytest.Item, seed: int) -> tuple[float, str, float]:
    """Where a test comes: by its own name and its module's alone, so that a part of the tests keeps its order."""
    module = item.nodeid.partition("::")[0]
    return Random(f"{seed} {module}").random(), module, Random(f"{seed} {item.nodeid}").random()


class _Seed:
    """Hands a run's seed to its workers, and prints it.

    Args:
        seed: the run's.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput["order seed"] = self._seed

    def pytest_report_header(self) -> str:
        return f"order: --order-seed {self._seed}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(f"The order of this run again: --order-seed {self._seed}")
