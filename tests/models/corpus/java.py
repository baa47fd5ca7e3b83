"""Models that bring a Java virtual machine of their own, and explanations."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Logging, inferred, logged

_ROWS = {"a": [0.5, 6.25, 3.0], "b": [1.5, 2.0, 7.75]}


def _training() -> pd.DataFrame:
    data = np.random.default_rng(7).uniform(0, 8, (40, 2))
    frame = pd.DataFrame(data, columns=["a", "b"])
    return frame.assign(y=frame["a"] * 2 + frame["b"])


def _h2o() -> Logging:
    import h2o
    from h2o.estimators import H2OGeneralizedLinearEstimator

    h2o.init(max_mem_size="512m", nthreads=1)
    model = H2OGeneralizedLinearEstimator(lambda_=0)
    model.train(["a", "b"], "y", h2o.H2OFrame(_training()))
    return logged("h2o", "h2o_model", model, pd.DataFrame(_ROWS))


def _spark() -> Logging:
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import VectorAssembler
    from pyspark.ml.regression import LinearRegression
    from pyspark.sql import SparkSession

    session = SparkSession.builder.master("local[1]").getOrCreate()
    table = session.createDataFrame(_training())
    stages = [VectorAssembler(inputCols=["a", "b"], outputCol="x"),
              LinearRegression(featuresCol="x", labelCol="y")]  # fmt: skip
    model = Pipeline(stages=stages).fit(table)
    return logged("spark", "spark_model", model, pd.DataFrame(_ROWS))


def _shap() -> Logging:
    import shap
    from sklearn.linear_model import LinearRegression

    table = _training()
    model = LinearRegression().fit(table[["a", "b"]].to_numpy(), table["y"])
    explainer = shap.Explainer(model.predict, table[["a", "b"]].to_numpy(), algorithm="permutation")
    example = pd.DataFrame(_ROWS)
    arguments = {
        "explainer": explainer,
        "signature": inferred(example),
        "serialize_model_using_mlflow": False,
    }
    return Logging("shap", arguments, example, function="log_explainer")


_FORMS = bodies.of_columns(_ROWS)
CASES = (
    Case("h2o", _h2o, _FORMS, needs=("h2o",)),
    Case("spark", _spark, _FORMS, needs=("pyspark",)),
    # It shuffles, and adds up in another order each time.
    Case("shap", _shap, _FORMS, needs=("shap",), tolerance=1e-9),
)
