"""What the forkserver imports at once, and what later."""

import json

from tests.fakes.pythons import told_by

DEFERRED = """
import importlib, json, os, signal, sys, time

imported = []
importlib.import_module = imported.append
sys.modules["sklearn.linear_model"] = None  # the first prediction fails
from gateway.worker.process import preload

at_once = list(imported)
preload.import_later(0.2)
child = os.fork()
if child == 0:
    os._exit(signal.getsignal(signal.SIGALRM) != signal.SIG_DFL)
_, status = os.waitpid(child, 0)
while signal.getsignal(signal.SIGALRM) != signal.SIG_DFL:
    time.sleep(0.01)
print(json.dumps([at_once, imported[len(at_once):], status]))
"""
COMPLETE = """
import json, sys
from gateway.worker.process import preload

preload.import_libraries(preload.LATER)
preload.predict_once()
before = set(sys.modules)

import pandas
from sklearn.linear_model import LinearRegression
from gateway.worker import entry, served_model, serving_loop
from gateway.worker.flavors import pytorch, scikit_learn
from gateway.worker.loading import load
from gateway.worker.process import warning_filter

table = pandas.DataFrame({"a": [1.0, 2.0], "b": [0.5, 1.5]})
LinearRegression().fit(table, [1.0, 2.0]).predict(table)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_rare_libraries_are_imported_after_the_first_forks():
    at_once, later, status = json.loads(told_by(DEFERRED))
    assert {"mlflow.sklearn", "skops.io", "mlflow.pytorch"} <= set(at_once)
    assert {"gateway.worker.entry", "gateway.worker.loading"} <= set(at_once)
    assert any(name.startswith("torch.export") for name in later)
    assert not set(at_once) & set(later)
    assert status == 0


def test_a_worker_that_predicts_a_table_imports_nothing_anew():
    assert json.loads(told_by(COMPLETE)) == []
