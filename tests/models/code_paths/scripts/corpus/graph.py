"""Models-from-code: a graph of LangGraph with one node, which asks no model."""

import mlflow
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph


def answer(state):
    return {"messages": [AIMessage(content=state["messages"][-1].content.upper(), id="one")]}


builder = StateGraph(MessagesState)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
builder.add_edge("answer", END)
mlflow.models.set_model(builder.compile())
