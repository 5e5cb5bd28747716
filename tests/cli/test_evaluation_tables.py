"""What is printed of an evaluation."""

from terralean.cli.console import out_console
from terralean.cli.evaluation_tables import score_table


def test_class_names_in_brackets_are_printed_as_they_are(capsys):
    entry = {"value": 0.5, "low": 0.25, "high": 0.75}
    scores = dict.fromkeys(("mIoU", "OA", "mF1", "AA", "kappa"), entry)
    document = {"task": "segmentation", **scores, "seeds": [], "classes": [{"name": "[bold]bare[/x]", "IoU": {"value": None}}]}
    out_console.print(score_table(document))
    out = capsys.readouterr().out
    assert "IoU [bold]bare[/x]  -      -" in out
    assert "0.500  0.250 .. 0.750" in out
