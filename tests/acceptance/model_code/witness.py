"""A model that tells what happens to it; a model from code, so nothing of it is pickled.

Its ``model_config``: ``offset`` is added to ``x``; ``load_s`` and ``predict_s`` are how long it
takes; ``diary`` is a file to which it adds a line per load: ``begin <pid>`` and ``loaded <pid>``;
``tell`` is ``sum`` (the answer), ``pid`` or ``modules``.
"""

import os
import sys
import time

import mlflow
import pandas as pd


class Witness(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self._config = dict(context.model_config or {})
        self._note("begin")
        time.sleep(self._config.get("load_s", 0))
        self._note("loaded")

    def predict(self, context, model_input, params=None):
        time.sleep(self._config.get("predict_s", 0))
        tell = self._config.get("tell", "sum")
        if tell == "pid":
            answers = [float(os.getpid())] * len(model_input)
        elif tell == "modules":
            answers = [" ".join(sorted(sys.modules))] * len(model_input)
        else:
            answers = [self._config.get("offset", 0.0) + float(x) for x in model_input["x"]]
        return pd.DataFrame({"y": answers})

    def _note(self, word):
        diary = self._config.get("diary")
        if diary:
            with open(diary, "a") as file:
                file.write(f"{word} {os.getpid()}\n")


mlflow.models.set_model(Witness())
