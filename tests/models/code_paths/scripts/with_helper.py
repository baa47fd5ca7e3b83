"""Models-from-code: predicts with a module that travels in ``code_paths``."""

import mlflow
from mlflow.pyfunc import PythonModel


class WithHelper(PythonModel):
    def load_context(self, context):
        import scoring_rules

        self.rules = scoring_rules

    def predict(self, context, model_input, params=None):
        return self.rules.score(model_input["x"].tolist())


mlflow.models.set_model(WithHelper())
