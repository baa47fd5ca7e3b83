"""Each named sabotage of `make mutants` still finds the text that it replaces."""

import pytest

from tests.mutants.named import NAMED, Named
from tests.mutants.workshop import module_file


@pytest.mark.parametrize("sabotage", NAMED, ids=lambda one: one.name)
def test_a_named_sabotage_finds_its_text_once(sabotage: Named) -> None:
    assert module_file(sabotage.module).read_text().count(sabotage.find) == 1
