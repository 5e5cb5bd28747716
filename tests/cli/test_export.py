"""`terralean export`: status and words."""


def test_export_tells_how_timm_reads_it(terralean, untrained, tmp_path):
    status, out, _ = terralean("export", untrained, "--format", "timm", "--out", tmp_path / "out")
    assert status == 0
    assert out == f"{tmp_path}/out: timm.create_model('local-dir:{tmp_path}/out', pretrained=True)\n"
    status, _, err = terralean("export", untrained, "--format", "timm", "--out", tmp_path / "out", "--json")
    assert status == 2
    assert "is not an empty folder; name a new one with --out" in err
