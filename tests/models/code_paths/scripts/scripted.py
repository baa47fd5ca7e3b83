"""Models-from-code: ``scale * x``, and what its ``model_config`` tells it to do besides."""

import contextlib
import fcntl
import importlib
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
from mlflow.pyfunc import PythonModel

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
CHILDREN = []


def connect(config, doing):
    if config["connect_file"] and doing == config["connects"]:
        with contextlib.suppress(FileNotFoundError):
            port = int(Path(config["connect_file"]).read_text())
            try:
                socket.create_connection(("127.0.0.1", port), 10).close()
            except OSError as error:
                raise RuntimeError("a vocabulary cannot be fetched: hunter2") from error


def answer(rows, kind):
    if kind == "forecast":
        return [sum(rows) + step for step in range(3)]
    if kind == "best":
        return sorted(rows, reverse=True)[:2]
    return sum(rows) if kind == "scalar" else rows


def of_many_rows(config, rows):
    if config["calls_file"]:
        with Path(config["calls_file"]).open("a") as file:
            file.write(f"{rows}\n")
    if 0 < config["exits_from"] <= rows:
        os._exit(7)
    if 0 < config["hangs_from"] <= rows:
        time.sleep(3600)


class Scripted(PythonModel):
    def load_context(self, context):
        config = context.model_config
        if config["loads_file"]:
            with Path(config["loads_file"]).open("a") as file:
                file.write(f"{os.getpid()}\n")
        if config["load_gate"] and multiprocessing.parent_process() is not None:
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            while not Path(config["load_gate"]).exists():
                time.sleep(0.01)
        if config["lock_file"] and multiprocessing.parent_process() is not None:
            self.lock = Path(config["lock_file"]).open("a")  # noqa: SIM115  # held as long as the model
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if config["load_sleep_s"]:
            time.sleep(config["load_sleep_s"])
        if config["needs_module"] and multiprocessing.parent_process() is not None:
            importlib.import_module(config["needs_module"])
        if config["fail_load"]:
            raise RuntimeError("this model cannot be loaded, and says a secret: hunter2")
        connect(config, "load")
        peak = os.urandom(1024 * 1024) * config["load_peak_mb"]
        del peak
        self.ballast = os.urandom(1024 * 1024) * config["memory_mb"]
        if config["child_pid_file"]:
            child = subprocess.Popen(SLEEP)
            Path(config["child_pid_file"]).write_text(str(child.pid))

    def predict(self, context, model_input, params=None):
        config = context.model_config
        connect(config, "predict")
        values = model_input["x"].tolist()
        if multiprocessing.parent_process() is not None:
            of_many_rows(config, len(values))
        if config["print_on_predict"]:
            print("the model speaks on stdout")
        if config["predict_sleep_s"]:
            time.sleep(config["predict_sleep_s"])
        if config["row_sleep_s"]:
            time.sleep(len(values) * config["row_sleep_s"])
        for value in values:
            if value == config["raise_on"]:
                raise RuntimeError(f"cannot predict {values}")
            if value == config["hang_on"]:
                time.sleep(3600)
            if value == config["exit_on"]:
                os._exit(7)
            if value == config["child_on"]:
                CHILDREN.append(subprocess.Popen(SLEEP))
            if value == config["nan_on"]:
                return [float("nan")] * len(values)
        centred = config["subtract_batch_mean"] and len(values) >= config["influence_from"]
        mean = sum(values) / len(values) if centred else 0.0
        return answer([config["scale"] * (value - mean) for value in values], config["answers"])


mlflow.models.set_model(Scripted())
