"""Shared by several test files: a runner of the real command line, and a third party's quantizers that fail."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from helpers.documents import last_wins
from helpers.servers import PASSWORD, USER, MlflowServer, Postgres, find_initdb
from helpers.warm import Warm

# How long an example takes is the machine's matter: on a busy one the default of 0.2 s fails tests at random.
# CI tries the same examples each time, everybody else new ones: what they find is a test to be added.
hypothesis.settings.register_profile("quantlab", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("quantlab")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items):
    """Mark the tests of random input that `make soak` runs for longer; files that take minutes begin first.

    Otherwise one of them is left over at the end for one process.
    """
    for item in items:
        if getattr(getattr(item, "function", None), "is_hypothesis_test", False) and item.path.parent.name == "faults":
            item.add_marker(pytest.mark.fuzz)
    items.sort(key=lambda item: item.get_closest_marker("minutes") is None)


# A third party's quantizers, found through the entry point that any package can use: each fails in its own way,
# but for one, which tells how often it was asked.
FAULTS = """
import ctypes, multiprocessing, os, signal, time
from quantlab.data.readers.manifest import read_shipped
from quantlab.quantization.backends import torch as real

class Fault:
    DISTRIBUTIONS = ()
    __name__ = "quantlab_faults"
    def __init__(self, setup): self.setup = setup
    def why_unsupported(self, quant, device): return None
    def is_quantized(self, module): return False
    def kernel(self, module): return None

def _hang(*_): time.sleep(600)
def _segfault(*_): ctypes.string_at(0)
def _kill(*_): os.kill(os.getpid(), signal.SIGKILL)
def _exit(*_): os._exit(3)
def _raise(*_):
    kept.append(multiprocessing.RLock())  # as tqdm has one, a semaphore that is there until the process ends
    raise ValueError("this library is\\nbroken")
kept = []
def _memory(*_): bytearray(1 << 62)
def _lazy(model, *_): return model

hang, segfault, kill, exit_, raise_, memory, lazy = map(Fault, (_hang, _segfault, _kill, _exit, _raise, _memory, _lazy))

def _written_down(what):
    with open(os.environ["QUANTLAB_WITNESS"], "a") as file:
        file.write(f"{what}\\n")

def read(dataset):  # the shipped corpus, which writes down every time that it is listed
    _written_down(dataset.name)
    return read_shipped(dataset.model_copy(update={"source": "shipped"}))

def _witness(model, quant, *rest):
    _written_down(f"{quant.library} {quant.target}")
    return real.setup(model, quant, *rest)

def _failing_witness(model, quant, *rest):
    _written_down(f"{quant.library} {quant.target}")
    time.sleep(4)
    raise ValueError("seen, and failed")

class Witness(Fault):  # torch's own int8, which writes down every time that it is asked for
    def is_quantized(self, module): return real.is_quantized(module)
    def kernel(self, module): return real.kernel(module)

witness, failing_witness = Witness(_witness), Fault(_failing_witness)
"""
ENTRY_POINTS = """[quantlab.quantizers]
hang = quantlab_faults:hang
segfault = quantlab_faults:segfault
kill = quantlab_faults:kill
exit = quantlab_faults:exit_
raise = quantlab_faults:raise_
memory = quantlab_faults:memory
lazy = quantlab_faults:lazy
witness = quantlab_faults:witness
failing_witness = quantlab_faults:failing_witness

[quantlab.datasets]
witness = quantlab_faults:read
"""


@pytest.fixture(scope="session")
def faults(tmp_path_factory):
    """A folder for PYTHONPATH that holds the third-party package."""
    site = tmp_path_factory.mktemp("site")
    (site / "quantlab_faults.py").write_text(FAULTS)
    info = site / "quantlab_faults-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quantlab-faults\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    """One cache of features for the whole test run."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(shared_cache):
    """What a test run remembers stays in its own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTLAB_CACHE", str(shared_cache))
        yield


@pytest.fixture(scope="session", autouse=True)
def environment_at_start(_own_cache):
    """What every file of tests begins with."""
    return dict(os.environ)


@pytest.fixture(scope="module", autouse=True)
def _no_environment_left_behind(environment_at_start):
    """A variable set by a file, or by a library imported there, would cost all later ones their warm server."""
    yield
    os.environ.clear()
    os.environ.update(environment_at_start)


@pytest.fixture(scope="session")
def warm(environment_at_start):
    """Runs commands whose imports were made before."""
    with Warm(environment_at_start) as server:
        yield server


@pytest.fixture
def quantlab(tmp_path, faults, shared_cache, warm):
    """Runs `python -m quantlab` as a user does, in an empty folder; `module` runs another command.

    `fresh` imports everything anew, for tests of time, of memory, and of what a process leaves behind.
    """

    def environment():
        path = os.pathsep.join([str(faults), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
        return os.environ | {"PYTHONPATH": path, "QUANTLAB_CACHE": str(shared_cache), "COLUMNS": "160"}

    def run(*arguments, module="quantlab", timeout=280, fresh=False, **options):
        arguments = last_wins(arguments)  # tests add to their common keys
        if not (fresh or options) and warm.can_run(tmp_path, environment()):
            return warm.run(["-m", module, *arguments], tmp_path, environment(), timeout)
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            **options,
        )

    def start(*arguments, module="quantlab", fresh=True):
        arguments = last_wins(arguments)
        if not fresh and warm.can_run(tmp_path, environment()):
            return warm.popen(["-m", module, *arguments], tmp_path, environment())
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # a job that a script put into the background ignores Ctrl-C, and would hand that down to its children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    run.start = start
    run.folder = tmp_path
    return run


@pytest.fixture(scope="session")
def postgres():
    """The distribution's PostgreSQL, a cluster of its own for the whole test run."""
    if find_initdb() is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    cluster = Postgres()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def server(postgres, tmp_path_factory):
    """MLflow's server on it; `credentials` signs in."""
    running = MlflowServer(tmp_path_factory.mktemp("server"), postgres)
    yield running
    running.kill()


@pytest.fixture
def credentials(monkeypatch):
    """Who may write to the server, as a user sets it."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
