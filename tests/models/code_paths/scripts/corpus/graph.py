"""Models-from-code: a graph of LangGraph with one node, which asks no model."""

from typing import TypedDict

import mlflow
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    messages: list


def answer(state):
    said = state["messages"][-1]
    text = said["content"] if isinstance(said, dict) else said.content
    return {"messages": [AIMessage(content=text.upper(), id="one")]}


builder = StateGraph(State)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
builder.add_edge("answer", END)
mlflow.models.set_model(builder.compile())
