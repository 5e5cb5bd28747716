"""`terralean explain`: status, standard output and error, and the files."""

import json

import numpy as np
import rasterio


def test_explain_tells_a_table_and_one_json_document(terralean, untrained, scene, tmp_path):
    arguments = ("explain", untrained, scene, "--out", tmp_path / "seen", "--device", "cpu", "--tokens", "3,11", "--stage", "1")
    status, out, _ = terralean(*arguments)
    assert status == 0
    assert "token 11" in out and "S1 block 1 (shown): 2 tokens have" in out
    with rasterio.open(tmp_path / "seen" / "scene_meta_s1b1.tif") as dataset:
        assert dataset.descriptions == ("token 3", "token 11")
        assert dataset.crs.to_epsg() == 32633
    status, out, err = terralean(*arguments)
    assert status == 2
    assert out == ""
    assert "say --overwrite" in " ".join(err.split())
    status, out, _ = terralean(*arguments, "--direction", "image", "--head", "1", "--json")
    assert status == 0
    document = json.loads(out)
    assert document == json.loads((tmp_path / "seen" / "scene_image_s1b1_head1.json").read_text())
    assert [one["number"] for one in document["blocks"][0]["maps"]] == [3, 11]


def test_explain_shows_tokens_where_a_method_is_given(terralean, untrained, scene, tmp_path):
    arguments = ("explain", untrained, scene, "--out", tmp_path / "seen", "--device", "cpu")
    chosen = ("--set", "reduce.method=topk", "--set", "reduce.after=[2,4]", "--set", "reduce.counts=[9,4]")
    status, out, _ = terralean(*arguments, *chosen)
    assert status == 0
    assert [line.split()[:3] for line in out.splitlines()[1:3]] == [["2", "16", "9"], ["4", "16", "4"]]
    assert "layer 2 keeps " in out and "scene_tokens_topk.png" in out
    with rasterio.open(tmp_path / "seen" / "scene_tokens_topk.tif") as dataset:
        assert dataset.crs.to_epsg() == 32633
        assert dataset.transform[0] == 8.0
        assert set(np.unique(dataset.read())) == {0, 1, 2}
    status, out, _ = terralean(*arguments, "--show", "tokens", "--set", "reduce.method=tome", "--set", "reduce.r=2", "--json")
    assert status == 0
    assert json.loads(out) == json.loads((tmp_path / "seen" / "scene_tokens_tome.json").read_text())
