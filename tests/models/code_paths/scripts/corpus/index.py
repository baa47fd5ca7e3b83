"""Models-from-code: an index of LlamaIndex over two texts, with models that are none."""

import mlflow
from llama_index.core import Document, MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.llms import MockLLM

Settings.llm = MockLLM(max_tokens=8)
Settings.embed_model = MockEmbedding(embed_dim=4)
documents = [Document(text="one", id_="1"), Document(text="two", id_="2")]
mlflow.models.set_model(VectorStoreIndex.from_documents(documents))
