"""Processes that have MLflow imported when they begin, with the environment of the test that starts them."""

import multiprocessing
import os

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store", "quantlab.tracking"])


def process(function, *arguments):
    """Not yet started. The server that it is forked from is older than the test, and so is its environment."""
    return CONTEXT.Process(target=_run, args=(dict(os.environ), function, arguments))


def _run(environment, function, arguments):
    os.environ.update(environment)
    function(*arguments)
