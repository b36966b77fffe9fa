from __future__ import annotations

import importlib

import pytest

import sdclr


def test_every_public_name_is_there_under_its_own_home() -> None:
    assert set(sdclr.__all__) == set(sdclr._HOMES)
    for name in sdclr.__all__:
        assert getattr(sdclr, name) is getattr(importlib.import_module(sdclr._HOMES[name]), name)
    assert set(sdclr.__all__) <= set(dir(sdclr))


def test_the_verbs_stay_functions_whatever_was_imported_before() -> None:
    importlib.import_module("sdclr.jobs.pretrain")
    importlib.import_module("sdclr.jobs.evaluate")
    assert callable(sdclr.pretrain)
    assert callable(sdclr.evaluate)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        sdclr.train  # noqa: B018
