from importlib import metadata

import pytest

from gateway.worker.process.installed import PRELOADED, installed_version


@pytest.fixture(autouse=True)
def forgotten():
    installed_version.cache_clear()
    yield
    installed_version.cache_clear()


def test_version_of_a_library():
    assert installed_version("numpy") == metadata.version("numpy")


@pytest.mark.parametrize("name", ["no-such-library", "", "a b"])
def test_no_version_of_what_is_not_installed(name):
    assert installed_version(name) is None


def test_version_is_read_once(monkeypatch):
    known = {name: installed_version(name) for name in PRELOADED}
    monkeypatch.setattr(metadata, "version", pytest.fail)
    assert {name: installed_version(name) for name in PRELOADED} == known
