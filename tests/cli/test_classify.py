"""`terralean classify`: status, standard output and error, and the table."""

import json

import numpy as np
from PIL import Image


def test_classify_tells_the_classes_of_images(terralean, recogniser, tmp_path):
    for name, colour in (("a", (180, 120, 130)), ("b", (100, 210, 120)), ("c", (100, 220, 120))):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), colour, np.uint8)).save(tmp_path / "images" / f"{name}.png")
    arguments = ("classify", recogniser, tmp_path / "images", "--device", "cpu")
    status, out, _ = terralean(*arguments, "--top", "2")
    assert status == 0
    # Logits 80 / 40, 10 / 50 and 10 / 60.
    assert out.splitlines()[0] == f"{tmp_path}/images/a.png: field 75.5%, forest 12.5%"
    assert len(out.splitlines()) == 3
    (tmp_path / "images" / "broken.jpg").write_bytes(b"no image")
    status, out, err = terralean(*arguments, "--out", tmp_path / "table.csv")
    assert status == 1
    assert out == f"{tmp_path}/table.csv: 3 images\n  forest 2, field 1\n"
    assert "1 of 4 images failed" in err
    assert "broken.jpg" in err
    status, out, _ = terralean(*arguments, "--json")
    assert status == 1
    document = json.loads(out)
    assert [image["likeliest"][0]["name"] for image in document["images"]] == ["field", "forest", "forest"]
    assert [*document["failed"]] == [str(tmp_path / "images" / "broken.jpg")]
    Image.fromarray(np.full((40, 40), 9, np.uint8)).save(tmp_path / "grey.png")
    status, out, err = terralean("classify", recogniser, tmp_path / "grey.png")
    assert (status, out) == (2, "")
    assert "scene: band_1\n  model: red, green, blue" in err
