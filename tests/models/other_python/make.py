"""Makes ``model/python_model.pkl``, pickled by another Python: ``python3.13 make.py FILE``.

It needs cloudpickle only. MLflow's base class is a stand-in here, which the pickle names and does
not contain; the model's own code it contains, as bytecode of the Python that ran this.
"""

import sys
import types

import cloudpickle


class PythonModel:
    """Stands in for MLflow's class of this name."""


PythonModel.__module__ = "mlflow.pyfunc.model"
for name in ("mlflow", "mlflow.pyfunc", PythonModel.__module__):
    sys.modules[name] = types.ModuleType(name)
sys.modules[PythonModel.__module__].PythonModel = PythonModel  # type: ignore[attr-defined]


class Crashing(PythonModel):
    """Ends a process of Python 3.11 while it loads, by the bytecode that 3.13 makes of it."""

    def load_context(self, context):
        """Call a function inside this one."""

        def inner(x):
            return x + len(str(x))

        self.total = inner(1)

    def predict(self, context, model_input, params=None):
        """Return one number."""
        return [1.0]


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as out:  # noqa: PTH123  # without a library
        cloudpickle.dump(Crashing(), out)
