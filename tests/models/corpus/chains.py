"""Chains and agents of other libraries, without a network."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Document, Logging, inferred, logged
from tests.models.corpus.python_models import SCRIPTS

_SAID = {"messages": [{"role": "user", "content": "hi"}]}
_QUESTIONS = {"question": ["who", "what"]}
_CHAIN: dict[str, Document] = {
    **bodies.of_columns(_QUESTIONS),
    "inputs, texts": {"inputs": ["who"]},
}
_PROGRAM: dict[str, Document] = {
    **bodies.of_columns({"question": ["who"]}),
    "two rows": {"dataframe_records": [{"question": "who"}, {"question": "what"}]},
}
_CHAT: dict[str, Document] = {
    "as a client": _SAID,
    "inputs": {"inputs": _SAID},
    "inputs, list": {"inputs": [_SAID]},
    "dataframe_records": {"dataframe_records": [_SAID]},
    "dataframe_split": bodies.split(["messages"], [[_SAID["messages"]]]),
    "instances": {"instances": [_SAID]},
}


def _langchain() -> Logging:
    return Logging("langchain", {"lc_model": str(SCRIPTS / "chain.py")}, {"question": "who"})


def _langgraph() -> Logging:
    return Logging("langchain", {"lc_model": str(SCRIPTS / "graph.py")}, _SAID)


def _llama_index() -> Logging:
    arguments = {"llama_index_model": str(SCRIPTS / "index.py"), "engine_type": "query"}
    return Logging("llama_index", arguments, "who")


def _dspy() -> Logging:
    import dspy

    class Program(dspy.Module):  # type: ignore[misc]  # not typed
        """Asks no model."""

        def forward(self, question: str) -> Any:
            """Return the question, louder."""
            return dspy.Prediction(answer=question.upper())

    return logged("dspy", "dspy_model", Program(), {"question": "who"})


def _openai() -> Logging:
    arguments: dict[str, Any] = {
        "model": "gpt-4o-mini",
        "task": "chat.completions",
        "messages": [{"role": "user", "content": "Say {word}."}],
    }
    return Logging("openai", arguments, None)


def _diffusers() -> Logging:
    from safetensors.numpy import save_file

    folder = Path(mkdtemp())
    save_file({"weight": np.ones((2, 2), dtype="float32")}, folder / "adapter.safetensors")
    arguments = {
        "adapter_path": str(folder),
        "base_model": str(folder / "base"),
        "signature": inferred(["a house"]),
    }
    return Logging("diffusers", arguments, None)


CASES = (
    Case(
        "diffusers",
        _diffusers,
        bodies.of_values(["a house"]),
        needs=("diffusers", "transformers"),
    ),
    Case("langchain", _langchain, _CHAIN, needs=("langchain",)),
    Case("langgraph", _langgraph, _CHAT, needs=("langgraph",)),
    Case(
        "llama-index",
        _llama_index,
        bodies.of_values(["who", "what"]),
        needs=("llama_index.core",),
    ),
    Case("dspy", _dspy, _PROGRAM, needs=("dspy",)),
    Case("openai", _openai, bodies.of_columns({"word": ["a"]}), needs=("openai",)),
)
