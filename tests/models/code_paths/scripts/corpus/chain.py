"""Models-from-code: a chain of LangChain that asks no model."""

import mlflow
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda

prompt = PromptTemplate.from_template("Answer: {question}")
mlflow.models.set_model(
    prompt | RunnableLambda(lambda value: value.text.upper()) | StrOutputParser()
)
