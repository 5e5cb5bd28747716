from xml.etree import ElementTree as Xml

from terralean.raster.style import attribute_table, join_pam, qml
from terralean.spec import Classes

CLASSES = Classes(names=('a & b <"c">', "été\x07", "wood"), colours=((1, 2, 3), (255, 0, 16), (0, 128, 0)))


def test_a_qgis_style_has_an_entry_per_class():
    entries = [dict(entry.attrib) for entry in Xml.fromstring(qml(CLASSES)).iter("paletteEntry")]
    assert entries == [
        {"value": "0", "color": "#010203", "alpha": "255", "label": 'a & b <"c">'},
        {"value": "1", "color": "#ff0010", "alpha": "255", "label": "été\ufffd"},
        {"value": "2", "color": "#008000", "alpha": "255", "label": "wood"},
    ]
    renderer = Xml.fromstring(qml(CLASSES)).find("pipe/rasterrenderer")
    assert (renderer.get("type"), renderer.get("band"), renderer.get("opacity")) == ("paletted", "1", "1")


def test_an_attribute_table_has_a_row_per_class():
    root = Xml.fromstring(attribute_table(CLASSES, (7, 0, 3_000_000_000), area_m2=(700.0, 0.0, 3e11)))
    titles = [column.findtext("Name") for column in root.iter("FieldDefn")]
    rows = [[cell.text for cell in row] for row in root.iter("Row")]
    assert titles == ["Value", "Class", "Red", "Green", "Blue", "Count", "Area_m2"]
    assert rows == [
        ["0", 'a & b <"c">', "1", "2", "3", "7", "700"],
        ["1", "été\ufffd", "255", "0", "16", "0", "0"],
        ["2", "wood", "0", "128", "0", "3000000000", "300000000000"],
    ]
    assert [name.text for name in root.iter("Category")] == ['a & b <"c">', "été\ufffd", "wood"]


def test_without_a_place_there_is_no_area():
    assert "Area_m2" not in attribute_table(CLASSES, (1, 2, 3))


def test_joining_keeps_what_gdal_wrote_and_we_did_not():
    gdals = (
        '<PAMDataset><SRS>LOCAL</SRS><PAMRasterBand band="1"><CategoryNames/><Description>class</Description></PAMRasterBand>'
        '<PAMRasterBand band="2"><Description>other</Description></PAMRasterBand></PAMDataset>'
    )
    root = Xml.fromstring(join_pam(attribute_table(CLASSES, (1, 2, 3)), gdals))
    assert root.findtext("SRS") == "LOCAL"
    assert [band.findtext("Description") for band in root.iter("PAMRasterBand")] == ["class", "other"]
    assert len(root.findall("PAMRasterBand/CategoryNames")) == 1 and len(root.findall("*//Category")) == 3
