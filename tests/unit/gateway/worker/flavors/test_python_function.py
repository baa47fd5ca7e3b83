"""The reader of MLmodel files gets libyaml's parser; models keep the yaml that they import."""

from types import SimpleNamespace

import yaml

from gateway.worker.flavors import python_function


def test_only_the_reader_parses_with_libyaml(monkeypatch):
    loaders = []
    monkeypatch.setattr(yaml, "load", lambda _, Loader: loaders.append(Loader))  # noqa: N803  # PyYAML's name
    reader = SimpleNamespace(yaml=yaml)
    for _ in range(2):  # the second call changes nothing
        python_function._parse_with_libyaml(reader)
    reader.yaml.safe_load("a: 1")
    yaml.safe_load("a: 1")
    assert loaders == [yaml.CSafeLoader, yaml.SafeLoader]
    assert reader.yaml.YAMLError is yaml.YAMLError
