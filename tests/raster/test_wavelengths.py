"""Wavelengths in nanometres from all units and places in which files tell them."""

import numpy as np
import pytest
import rasterio

from terralean.raster.scene import open_scene
from terralean.raster.wavelengths import nanometres, widths_nm

NM = (450.0, 550.0, 2200.0)


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        ("Nanometers", (450, 550, 2200)),
        ("Nanometer", (450, 550, 2200)),
        ("nm", (450, 550, 2200)),
        ("NANOMETRES", (450, 550, 2200)),
        ("Micrometers", (0.45, 0.55, 2.2)),
        ("micrometer", (0.45, 0.55, 2.2)),
        ("microns", (0.45, 0.55, 2.2)),
        ("um", (0.45, 0.55, 2.2)),
        ("\u00b5m", (0.45, 0.55, 2.2)),
        ("\u03bcm", (0.45, 0.55, 2.2)),
        ("Millimeters", (0.00045, 0.00055, 0.0022)),
        ("mm", (0.00045, 0.00055, 0.0022)),
        ("Centimeters", (0.000045, 0.000055, 0.00022)),
        ("Meters", (450e-9, 550e-9, 2200e-9)),
        ("m", (450e-9, 550e-9, 2200e-9)),
        ("Angstroms", (4500, 5500, 22000)),
        ("Wavenumber", (1e7 / 450, 1e7 / 550, 1e7 / 2200)),
        ("cm-1", (1e7 / 450, 1e7 / 550, 1e7 / 2200)),
        ("cm^-1", (1e7 / 450, 1e7 / 550, 1e7 / 2200)),
        ("1/cm", (1e7 / 450, 1e7 / 550, 1e7 / 2200)),
        ("GHz", (299792458 / 450, 299792458 / 550, 299792458 / 2200)),
        ("MHz", (299792458e3 / 450, 299792458e3 / 550, 299792458e3 / 2200)),
    ],
)
def test_every_unit_of_envi_becomes_nanometres(unit, values):
    nm, note = nanometres(values, unit=unit)
    assert nm == pytest.approx(NM) and note is None


@pytest.mark.parametrize("unit", [None, "", "Unknown"])
def test_without_a_unit_the_size_tells_it_and_that_is_said(unit):
    assert nanometres((0.45, 0.55, 2.2), unit=unit) == (
        NM,
        "the wavelengths have no unit; from their size they are micrometres",
    )
    assert nanometres(NM, unit=unit) == (NM, "the wavelengths have no unit; from their size they are nanometres")


def test_a_unit_that_cannot_be_is_corrected_and_that_is_said():
    nm, note = nanometres((0.45, 0.55, 2.2), unit="Nanometers")
    assert nm == NM
    assert note == "the wavelengths are said to be in Nanometers, but 0.45 to 2.2 can only be micrometres; read as these"
    nm, note = nanometres(NM, unit="Micrometers")
    assert nm == NM and "are said to be in Micrometers, but 450 to 2200 can only be nanometres" in note


def test_what_is_no_wavelength_is_not_used():
    assert nanometres((1, 2, 3), unit="Index") == (None, None)
    assert nanometres((1, 2, 3), unit=None) == (None, "the wavelengths are the numbers of the bands, and not used")
    assert nanometres((0, 1, 2), unit="Unknown")[0] is None
    nm, note = nanometres((3e6, 4e6), unit="nm")
    assert nm is None and note.startswith("the wavelengths, 3e+06 to 4e+06 nm, are not those of light")


def test_a_band_outside_of_light_has_none():
    assert nanometres((0, 450, 99_999), unit="nm")[0] == (None, 450, None)


def test_micrometres_among_nanometres_are_told():
    mixed = (0.45, 0.55, 650, 750)
    told = "2 of 4 wavelengths, 0.45, 0.55, are not those of light in that unit: these bands have none"
    assert nanometres(mixed, unit="nm") == ((None, None, 650, 750), told)
    assert nanometres(mixed, unit=None)[1] == f"the wavelengths have no unit; from their size they are nanometres; {told}"
    assert nanometres((0, 450, 550), unit="nm") == ((None, 450, 550), None)  # 0 is how a header says that it is not known


def test_widths_have_the_unit_of_the_centres():
    waves = (0.45, 0.55)
    nm, _ = nanometres(waves, unit="um")
    assert widths_nm((0.01, 0.02), waves=waves, nm=nm) == (10, 20)


# GeoTIFF.


@pytest.fixture
def tiff(tmp_path):
    """A file of three bands, which `tell` describes."""

    def make(tell):
        profile = {"driver": "GTiff", "count": 3, "height": 4, "width": 5, "dtype": "uint8", "photometric": "MINISBLACK"}
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
        with rasterio.open(tmp_path / "a.tif", "w", **profile, **place) as file:
            file.write(np.arange(60, dtype="uint8").reshape(3, 4, 5))
            tell(file)
        return open_scene(tmp_path / "a.tif").bands.wavelength_nm

    return make


def each(values, **how):
    """What writes a tag to each band."""

    def tell(file):
        for position, value in enumerate(values, start=1):
            file.update_tags(
                position, **{name: str(text).format(value) for name, text in how.items() if name != "ns"}, **_ns(how)
            )

    return tell


def _ns(how):
    return {"ns": how["ns"]} if "ns" in how else {}


@pytest.mark.parametrize(
    ("values", "how"),
    [
        (NM, {"wavelength": "{}", "wavelength_units": "Nanometers"}),
        ((0.45, 0.55, 2.2), {"wavelength": "{}", "wavelength_units": "Micrometers"}),
        ((0.45, 0.55, 2.2), {"Wavelength": "{}"}),
        (NM, {"WAVELENGTH": "{}", "WAVELENGTH_UNIT": "nm"}),
        (NM, {"center_wavelength": "{}"}),
        (NM, {"wavelength_nm": "{}"}),
        ((0.45, 0.55, 2.2), {"CENTRAL_WAVELENGTH_UM": "{}", "ns": "IMAGERY"}),
    ],
)
def test_tags_of_bands(tiff, values, how):
    assert tiff(each(values, **how)) == pytest.approx(NM)


@pytest.mark.parametrize(
    "tags",
    [
        {"wavelength": "{450.0 , 550.0 , 2200.0}", "wavelength_units": "Nanometers", "ns": "ENVI"},
        {"wavelength": "{0.45, 0.55, 2.2}", "wavelength_units": "Micrometers"},
        {"wavelengths": "[450, 550, 2200]"},
    ],
)
def test_lists_in_tags_of_the_file(tiff, tags):
    assert tiff(lambda file: file.update_tags(**tags)) == pytest.approx(NM)


@pytest.mark.parametrize(
    "pattern",
    ["band {i} ({nm} Nanometers)", "{nm} nm", "{um} um", "B{i}: {um} micrometers", "Resize (Band {i}:x) ({nm})"],
)
def test_names_of_bands(tiff, pattern):
    def tell(file):
        file.descriptions = [pattern.format(i=i, nm=nm, um=nm / 1000) for i, nm in enumerate(NM, start=1)]

    assert tiff(tell) == pytest.approx(NM)


def test_names_that_only_look_like_numbers_are_no_wavelengths(tiff):
    def tell(file):
        file.descriptions = ["band 1 (2)", "band 2 (3)", "band 3"]

    assert tiff(tell) is None


def test_real_tiles_and_the_mosaic_of_them_agree(shared):
    folder = shared / "data/hsi/enmap_potsdam"
    tile = open_scene(folder / "images/enmap_potsdam_tile_64_0.tif").bands
    assert tile.wavelength_nm == open_scene(folder / "derived_envi/enmap_potsdam_mosaic.hdr").bands.wavelength_nm
    assert len(tile) == 218
