"""Models that answer what they were given, type and value: by type hints, and by their examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.models.catalogue import _CODE, Payload, _Logged


@dataclass(frozen=True)
class TypedModel(_Logged):
    """A model of ``code_paths/scripts/typed.py``.

    Attributes:
        kind: Its class there.
        example: The input example that is logged, as `mlflow` takes it; None: none.
        signature: MLflow's; None: what it makes of the type hints, or of the example.
    """

    kind: str
    example: Any = None
    signature: Any = None

    def payload(self, rows: int = 1) -> Payload:
        raise NotImplementedError("each has bodies of its own")

    def expected(self, payload: Payload) -> list[Any]:
        raise NotImplementedError("MLflow's own server says it")

    def _flavor(self) -> str:
        return "pyfunc"

    def _arguments(self) -> dict[str, Any]:
        return {
            "python_model": str(_CODE / "scripts" / "typed.py"),
            "model_config": {"kind": self.kind},
            "input_example": self.example,
            **({} if self.signature is None else {"signature": self.signature}),
            "pip_requirements": ["mlflow"],
        }
