"""What a detector refuses or says of its images, names and settings, by small features."""

import numpy as np
import pytest
import tiny_maps

from anyshot_jax import AnomalyDetector
from anyshot_jax.defects import memory_bank

GOOD = tiny_maps.bright_squares(8, 1)[0]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.net)


def detector(**fields):
    return AnomalyDetector('tiny', **{'layers': ('stride4',), 'size': 16} | fields)


def test_images_without_names_are_numbered_on():
    found = detector().fit(GOOD[:3]).add_normal(GOOD[3:5])
    assert found.normal_[''].names == ('#0', '#1', '#2', '#3', '#4')
    found.remove_normal('#0').add_normal(GOOD[5:6])  # five are left, but #4 is taken
    assert found.normal_[''].names == ('#1', '#2', '#3', '#4', '#5')
    found.add_normal(GOOD[6:8], product=['other', ''])
    assert found.normal_['other'].names == ('#6',) and found.normal_[''].names[-1] == '#7'
