"""The public names."""

import subprocess
import sys

import pytest

import discrete_itd

pytestmark = pytest.mark.single_precision


def test_public_names():
    assert len(discrete_itd.__all__) <= 15
    for name in discrete_itd.__all__:
        assert getattr(discrete_itd, name) is getattr(discrete_itd, name)
        assert name in dir(discrete_itd)
    with pytest.raises(AttributeError, match="has no attribute 'Diffusion'"):
        discrete_itd.Diffusion  # noqa: B018


def test_the_package_is_imported_without_what_is_not_asked_for():
    code = (
        "import discrete_itd, sys; assert 'torch' not in sys.modules\n"
        "discrete_itd.DiffusionDensity, discrete_itd.ImageDensity\n"
        "assert not {'diffusers', 'matplotlib', 'jinja2'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
