"""Models-from-code: a program of DSPy that asks no model."""

import dspy
import mlflow


class Program(dspy.Module):
    def forward(self, question):
        return dspy.Prediction(answer=question.upper())


mlflow.models.set_model(Program())
