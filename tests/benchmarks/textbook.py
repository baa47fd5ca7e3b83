"""The app that everybody writes first: FastAPI, a pydantic body, a ``def`` endpoint, one process.

``python -m tests.benchmarks.textbook PORT FOLDER``: serves the scikit-learn model saved in
``FOLDER``. ``POST /load`` loads another one beside it, in a thread, as ``def`` endpoints run.
"""

from __future__ import annotations

import sys
from typing import Any

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from tests.benchmarks.ceiling import PLAIN


class Table(BaseModel):
    columns: list[str]
    data: list[list[float]]


class Request(BaseModel):
    dataframe_split: Table


class Answer(BaseModel):
    predictions: list[Any]


class Folder(BaseModel):
    folder: str


def create_app(folder: str) -> FastAPI:
    """Build the app around one model."""
    app = FastAPI()
    estimator = mlflow.sklearn.load_model(folder)
    neighbours: dict[str, Any] = {}

    @app.post("/predict")
    def predict(request: Request) -> Answer:
        rows = np.array(request.dataframe_split.data)
        return Answer(predictions=estimator.predict(rows).tolist())

    @app.post("/load")
    def load(given: Folder) -> dict[str, int]:
        neighbours["loaded"] = mlflow.pyfunc.load_model(given.folder, suppress_warnings=True)
        return {"loaded": len(neighbours)}

    @app.post("/unload")
    def unload() -> dict[str, int]:
        neighbours.clear()
        return {"loaded": 0}

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(sys.argv[2]), port=int(sys.argv[1]), **PLAIN)
