"""Spectral libraries of ENVI."""

import csv

import numpy as np
import pytest

from terralean.errors import UnreadableScene
from terralean.raster.scene import open_scene
from terralean.raster.spectral_library import is_library, read_library


def test_a_real_library(shared):
    folder = shared / "data/hsi/envi_samples"
    for name in ("library_berlin.hdr", "library_berlin.sli"):
        library = read_library(folder / name)
        np.testing.assert_array_equal(library.spectra, np.fromfile(folder / "library_berlin.sli", "<f8").reshape(75, 177))
    assert library.wavelength_nm[:2] == (460, 465) and len(library.wavelength_nm) == 177
    with (folder / "library_berlin.csv").open() as file:
        names = [row[0].strip() for row in csv.reader(file)][1:]
    assert len(library.names) == 75 and library.names[0] == "red clay tile 1" and library.names[-1] == "water 2"
    assert set(names) >= {"red clay tile 1"}
    assert library.scale == 1 and is_library(folder / "library_berlin.sli")


def test_a_library_is_no_scene_and_a_scene_no_library(shared):
    folder = shared / "data/hsi"
    with pytest.raises(UnreadableScene, match=r"library_berlin\.hdr is a library of 75 spectra, not a scene"):
        open_scene(folder / "envi_samples/library_berlin.hdr")
    with pytest.raises(UnreadableScene, match=r"SalinasA_corrected\.hdr is no spectral library"):
        read_library(folder / "salinas_a/SalinasA_corrected.hdr")


def test_names_that_are_too_few_are_not_used(tmp_path):
    (tmp_path / "a.sli").write_bytes(np.arange(6, dtype="<f4").tobytes())
    (tmp_path / "a.hdr").write_text(
        "ENVI\nsamples = 3\nlines = 2\nbands = 1\nfile type = ENVI Spectral Library\ndata type = 4\ninterleave = bsq\n"
        "spectra names = {one}\nreflectance scale factor = 100\n"
    )
    library = read_library(tmp_path / "a.hdr")
    assert (library.names, library.scale) == (("spectrum 1", "spectrum 2"), 0.01)
    assert "the header has 1 names for 2 spectra; they are not used" in library.warnings
    (tmp_path / "a.sli").write_bytes(bytes(8))
    with pytest.raises(UnreadableScene, match=r"a\.sli has 8 bytes"):
        read_library(tmp_path / "a.hdr")
