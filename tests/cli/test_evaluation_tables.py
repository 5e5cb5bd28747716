"""What is printed of an evaluation."""

from terralean.cli.console import out_console
from terralean.cli.evaluation_tables import curve_table, score_table


def test_class_names_in_brackets_are_printed_as_they_are(capsys):
    entry = {"value": 0.5, "low": 0.25, "high": 0.75}
    scores = dict.fromkeys(("mIoU", "OA", "mF1", "AA", "kappa"), entry)
    document = {"task": "segmentation", **scores, "seeds": [], "classes": [{"name": "[bold]bare[/x]", "IoU": {"value": None}}]}
    out_console.print(score_table(document))
    out = capsys.readouterr().out
    assert "IoU [bold]bare[/x]  -      -" in out
    assert "0.500  0.250 .. 0.750" in out


def test_the_curve_has_a_line_for_each_setting_the_own_one_first(capsys):
    own = {
        **{"overlap_px": 128, "precision": "fp32", "reduce": None, "score": "mIoU", "value": 0.8123, "low": 0.7, "high": 0.9},
        **{"change": {"value": 0.0, "low": 0.0, "high": 0.0}, "relative_cost": 1.0, "relative_window_cost": 1.0},
    }
    other = {
        **own,
        **{"overlap_px": 64, "precision": "bf16", "reduce": {"method": "topk", "shares": [0.7, 0.5]}, "value": 0.8},
        **{"low": None, "high": None, "change": {"value": -0.0123, "low": -0.02, "high": -0.004}, "relative_cost": 0.4567},
    }
    out_console.print(curve_table({"curve": {"rows": [own, other]}}))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "overlap px precision token reduction mIoU 95 % interval change 95 % interval time"
    assert lines[1] == "128 fp32 none 0.812 0.700 .. 0.900 1.00"
    assert lines[2] == "64 bf16 topk 0.7 0.5 0.800 - -0.012 -0.020 .. -0.004 0.46"
