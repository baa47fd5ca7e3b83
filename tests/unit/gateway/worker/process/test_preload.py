"""What the forkserver imports at once, and what later."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import importlib, json, os, signal, time

imported = []
importlib.import_module = imported.append
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


def test_what_few_models_need_is_imported_after_the_first_forks_and_forks_see_nothing_of_it():
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[5],
        timeout=60,
    ).stdout
    at_once, later, status = json.loads(answer)
    assert {"mlflow.sklearn", "skops.io", "mlflow.pytorch"} <= set(at_once)
    assert any(name.startswith("torch.export") for name in later)
    assert not set(at_once) & set(later)
    assert status == 0
