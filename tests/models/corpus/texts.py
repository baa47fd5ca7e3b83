"""Models of texts, with weights made here: spaCy, transformers, sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pandas as pd

from tests.models.corpus import bodies
from tests.models.corpus.cases import Case, Logging, logged

_TEXTS = ["good and cheap", "bad", "not good"]
_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "and", "cheap", "bad", "not"]
_TABLE = {"text": _TEXTS}


def _spacy() -> Logging:
    import spacy
    from spacy.training import Example

    spacy.util.fix_random_seed(0)
    language = spacy.blank("en")
    sorts = language.add_pipe("textcat")
    sorts.add_label("good")
    sorts.add_label("bad")
    shown = [
        Example.from_dict(language.make_doc(text), {"cats": {"good": good, "bad": 1.0 - good}})
        for text, good in zip(_TEXTS, (1.0, 0.0, 0.0), strict=True)
    ]
    language.initialize(lambda: shown)
    return logged("spacy", "spacy_model", language, pd.DataFrame(_TABLE))


def _tokenizer() -> Any:
    from transformers import BertTokenizerFast

    vocabulary = Path(mkdtemp()) / "vocab.txt"
    vocabulary.write_text("\n".join(_WORDS))
    return BertTokenizerFast(vocab_file=str(vocabulary))


def _bert(kind: str) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    settings: dict[str, Any] = {"vocab_size": len(_WORDS), "hidden_size": 16}
    settings |= {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return getattr(transformers, kind)(transformers.BertConfig(**settings)).eval()


def _transformers(task: str, kind: str, example: list[str], **more: Any) -> Callable[[], Logging]:
    def build() -> Logging:
        import transformers

        pipe = transformers.pipeline(task, model=_bert(kind), tokenizer=_tokenizer(), **more)
        return logged("transformers", "transformers_model", pipe, example, task=task)

    return build


def _sentences() -> Logging:
    from sentence_transformers import SentenceTransformer, models

    folder = Path(mkdtemp())
    _bert("BertModel").save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    words = models.Transformer(str(folder))
    model = SentenceTransformer(modules=[words, models.Pooling(16)], device="cpu")
    return Logging("sentence_transformers", {"model": model}, _TEXTS)


_MASKED = ["good and [MASK]", "[MASK] good"]
_BUILT = {
    "classifier": (
        _transformers("text-classification", "BertForSequenceClassification", _TEXTS),
        _TEXTS,
    ),
    "filler": (_transformers("fill-mask", "BertForMaskedLM", _MASKED[:1], top_k=2), _MASKED),
    "embedding": (_transformers("feature-extraction", "BertModel", _TEXTS), _TEXTS),
}
CASES = (
    Case("spacy", _spacy, bodies.of_columns(_TABLE), needs=("spacy",)),
    *(
        Case(f"transformers-{name}", build, bodies.of_values(texts), needs=("transformers",))
        for name, (build, texts) in _BUILT.items()
    ),
    Case(
        "sentence-transformers",
        _sentences,
        bodies.of_values(_TEXTS),
        needs=("sentence_transformers", "transformers"),
    ),
)
