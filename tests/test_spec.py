import re

import pytest

from terralean.errors import BandMismatch, ConfigError, LabelError
from terralean.spec import PALETTE, Bands, Classes, Normalisation, check_band_values, check_bands

RGB = Bands(names=("red", "green", "blue"))


def test_bands_choose_keeps_what_belongs_to_each_band():
    bands = Bands(names=("a", "b", "c"), wavelength_nm=(450, None, 650), units="reflectance", scale=1e-4, dtype="uint16")
    chosen = bands.choose([2, 0])
    assert chosen == Bands(names=("c", "a"), wavelength_nm=(650, 450), units="reflectance", scale=1e-4, dtype="uint16")


@pytest.mark.parametrize("names", [(), ("red", "red")])
def test_bands_need_different_names(names):
    with pytest.raises(ConfigError):
        Bands(names=names)


def test_wavelengths_in_micrometres_are_refused_with_the_fix():
    with pytest.raises(ConfigError, match="multiply by 1000"):
        Bands(names=("red",), wavelength_nm=(0.65,))


def test_same_bands_pass():
    check_bands(RGB, RGB, scene="scene.tif")
    check_bands(Bands(names=("band_1", "band_2", "band_3")), RGB, scene="scene.tif")  # only the count can be known


def test_another_order_names_both_lists_and_the_option_that_mends_it():
    with pytest.raises(BandMismatch) as error:
        check_bands(Bands(names=("blue", "green", "red", "nir")), RGB, scene="scene.tif")
    text = str(error.value)
    assert "scene.tif" in text
    assert "blue, green, red, nir" in text
    assert "red, green, blue\n" in text
    assert "--bands 3,2,1" in text


def test_no_band_in_common():
    with pytest.raises(BandMismatch, match="none of the model's bands"):
        check_bands(Bands(names=("vv", "vh")), RGB, scene="scene.tif")


def test_names_are_compared_without_case():
    check_bands(Bands(names=("Red", "GREEN", "blue ")), RGB, scene="scene.tif")


def test_bands_that_the_user_chose_may_have_other_names_but_not_another_count():
    check_band_values(Bands(names=("B04", "B03", "B02")), RGB, scene="scene.tif")
    with pytest.raises(BandMismatch, match=r"scene\.tif: 2 bands, the model was trained on 3(.|\n)*it needs all of them"):
        check_band_values(Bands(names=("B04", "B03")), RGB, scene="scene.tif")


def test_missing_band_is_named():
    with pytest.raises(BandMismatch, match="missing: blue"):
        check_bands(Bands(names=("red", "green", "nir")), RGB, scene="scene.tif")


def test_wrong_count_without_names():
    with pytest.raises(BandMismatch, match=r"scene\.tif: 4 bands, the model was trained on 3(.|\n)*--bands 1,2,3"):
        check_bands(Bands(names=("band_1", "band_2", "band_3", "band_4")), RGB, scene="scene.tif")


def test_another_scale_is_refused():
    with pytest.raises(BandMismatch, match=r"reflectance in steps of 0.0001(.|\n)*digital number in steps of 1"):
        check_bands(Bands(names=RGB.names, units="reflectance", scale=1e-4), RGB, scene="scene.tif")


@pytest.mark.parametrize("check", [check_bands, check_band_values])
@pytest.mark.parametrize(("found", "need"), [("uint16", "uint8"), ("uint8", "float32")])
def test_what_is_stored_in_8_bits_is_never_taken_for_what_is_not(check, found, need):
    message = f"scene.tif holds {found} values, the model was trained on {need}; convert it so that its values mean the same"
    with pytest.raises(BandMismatch, match=re.escape(message)):
        check(Bands(names=RGB.names, dtype=found), Bands(names=RGB.names, dtype=need), scene="scene.tif")


def test_wider_numbers_may_hold_the_same_values():
    check_bands(Bands(names=RGB.names, dtype="int16"), Bands(names=RGB.names, dtype="uint16"), scene="scene.tif")


def test_normalisation_refuses_a_constant_band():
    with pytest.raises(ConfigError, match="leave constant bands out"):
        Normalisation(mean=(1.0, 2.0), std=(1.0, 0.0))


def test_classes_in_the_default_palette_all_differ():
    classes = Classes.named([f"c{i}" for i in range(60)])
    assert classes.colours[: len(PALETTE)] == PALETTE
    assert len(set(classes.colours)) == 60


@pytest.mark.parametrize(
    ("names", "colours", "message"),
    [
        ((), (), "at least one class name, got none"),
        (("a", "a"), ((0, 0, 0), (1, 1, 1)), "must differ"),
        (("a",), (), "as many colours"),
        (("a",), ((0, 0, 256),), "0..255"),
    ],
)
def test_impossible_classes(names, colours, message):
    with pytest.raises(LabelError, match=message):
        Classes(names=names, colours=colours)


def spectrometer(*nm: float, prefix: str = "band") -> Bands:
    return Bands(names=tuple(f"{prefix} {i}" for i in range(len(nm))), wavelength_nm=nm)


STEPS = tuple(400.0 + 10 * i for i in range(12))


def test_bands_of_a_spectrometer_are_known_by_wavelength_and_not_by_name():
    need = spectrometer(*STEPS)
    check_bands(spectrometer(*(nm + 4.9 for nm in STEPS), prefix="tile 7, band"), need, scene="a.hdr")
    with pytest.raises(
        BandMismatch, match=r"a\.hdr has 12 of 12 bands at other wavelengths .*\(more than 5 nm away\)"
    ) as error:
        check_bands(spectrometer(*(nm + 6 for nm in STEPS)), need, scene="a.hdr")
    assert "band 1 at 406 nm for 400 nm" in str(error.value) and "and 7 more" in str(error.value)
    assert "scene: 406, 416" in str(error.value) and "model: 400, 410" in str(error.value)


def test_one_band_moved_or_missing_is_told():
    need = spectrometer(*STEPS)
    swapped = spectrometer(*STEPS[:3], STEPS[4], STEPS[3], *STEPS[5:])
    with pytest.raises(BandMismatch, match="has 2 of 12 bands at other wavelengths"):
        check_bands(swapped, need, scene="a.hdr")
    with pytest.raises(BandMismatch, match=r"a\.hdr: 11 bands, the model was trained on 12"):
        check_bands(spectrometer(*STEPS[1:]), need, scene="a.hdr")


def test_without_all_wavelengths_names_decide():
    unknown = Bands(names=tuple(f"x{i}" for i in range(12)), wavelength_nm=(None, *STEPS[1:]))
    with pytest.raises(BandMismatch, match="none of the model's bands"):
        check_bands(unknown, spectrometer(*STEPS), scene="a.hdr")


def test_several_dates_of_the_same_bands_are_known_by_name():
    need = Bands(names=tuple(f"{day} {i}" for day in "ab" for i in range(6)), wavelength_nm=STEPS[:6] * 2)
    with pytest.raises(BandMismatch, match="another order"):
        check_bands(need.choose([*range(6, 12), *range(6)]), need, scene="a.tif")
