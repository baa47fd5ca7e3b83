"""Models-from-code: answers ``x``, unless ``x`` is the number of something odd to do."""

import ctypes
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import mlflow
from mlflow.pyfunc import PythonModel

MIB = 1024 * 1024
KEPT = []


def hang(values):
    time.sleep(3600)


def spin(values):
    while True:
        pass


def hang_deaf(values):
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    time.sleep(3600)


def leave(values):
    os._exit(3)


def leave_politely(values):
    sys.exit(0)


def interrupt(values):
    raise KeyboardInterrupt


def crash(values):
    ctypes.string_at(0)


def end_own_group(values):
    os.killpg(0, signal.SIGKILL)
    time.sleep(3600)


def eat(values):
    held = []
    while True:
        held.append(bytearray(b"x") * (16 * MIB))


def eat_and_keep(values):
    while True:
        KEPT.append(bytearray(b"x") * (16 * MIB))


def recurse(values):
    return recurse(values)


def too_many_rows(values):
    return [*values, 0.0]


def no_rows(values):
    return []


def not_json(values):
    return [object() for _ in values]


def not_finite(values):
    return [float("nan") for _ in values]


def answer_much(values):
    return ["x" * (4 * MIB) for _ in values]


def print_much(values):
    for number in range(20_000):
        print(f"the model says its line number {number}")
    return values


def write_to_descriptors(values):
    for descriptor in (0, 1, 2):
        with_errors = os.fdopen(os.dup(descriptor), "wb", buffering=0, closefd=True)
        try:
            with_errors.write(b"\0\xff raw bytes of the model\n")
        except OSError:
            continue
    return values


def close_output(values):
    sys.stdout.close()
    sys.stderr.close()
    os.close(1)
    os.close(2)
    return values


def change_folder(values):
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
    return values


def change_environment(values):
    os.environ.clear()
    os.umask(0o777)
    sys.path.clear()
    return values


def start_threads(values):
    for daemon in (True, False) * 10:
        threading.Thread(target=time.sleep, args=(3600,), daemon=daemon).start()
    return values


def fork_and_return(values):
    os.fork()
    return values


def fork_and_stay(values):
    if os.fork() == 0:
        time.sleep(3600)
    return values


def start_child(values):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    return values


def start_child_in_own_group(values):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], process_group=0)
    return values


ODD = (
    *(hang, spin, hang_deaf, leave, leave_politely, interrupt, crash, end_own_group),
    *(eat, eat_and_keep, recurse, too_many_rows, no_rows, not_json, not_finite),
    *(
        answer_much,
        print_much,
        write_to_descriptors,
        close_output,
        change_folder,
        change_environment,
    ),
    *(start_threads, fork_and_return, fork_and_stay, start_child, start_child_in_own_group),
)
BY_NUMBER = {float(1000 + number): odd for number, odd in enumerate(ODD)}
BY_NAME = {odd.__name__: odd for odd in ODD}


class Odd(PythonModel):
    def load_context(self, context):
        self.in_warm_up = None
        file = context.model_config["begins_oddly"]
        # MLflow loads it too, where it is logged: in the process of the tests.
        if not file or multiprocessing.current_process().name != "model worker":
            return
        phase, way = pathlib.Path(file).read_text().split()
        if phase == "load":
            BY_NAME[way]([])
        else:
            self.in_warm_up = BY_NAME[way]

    def predict(self, context, model_input, params=None):
        values = model_input["x"].tolist()
        if self.in_warm_up is not None:
            odd, self.in_warm_up = self.in_warm_up, None
            return odd(values)
        for value in values:
            if value in BY_NUMBER:
                return BY_NUMBER[value](values)
        return values


mlflow.models.set_model(Odd())
