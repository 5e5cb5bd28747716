"""What the page says of tokens that are taken out or merged."""

from terralean.evaluate.page import NOTHING, SPACE
from terralean.evaluate.token_cost import Left, TokenCost
from terralean.evaluate.token_page import BINS, Costed, cells, counted_words, section, sentence
from terralean.tokens.matp import MATPConfig

LEFT = (Left(layer=3, shares=(0.5, 0.5, 0.5, 0.5)), Left(layer=6, shares=(0.1, 0.2, 0.2, 0.5)))
COST = TokenCost(
    operations=(4_000_000_000, 5_000_000_000, 5_000_000_000, 8_000_000_000),
    macs=(3, 4, 4, 7),
    left=LEFT,
    dense_operations=10_000_000_000,
    dense_macs=9,
    complete=True,
)


def costed(cost: TokenCost | None, *, name: str = "one") -> Costed:
    return Costed(name=name, method="matp", cost=cost, windows_per_s=12.34)


def test_a_run_and_one_without_a_method_stand_beside_each_other():
    found = section([costed(None, name="dense"), costed(COST)])
    dense, one = found.runs
    assert (dense["operations"], dense["dense"], dense["share"], dense["left"], dense["after"]) == (*[NOTHING] * 4, "")
    assert (one["operations"], one["range"], one["dense"], one["share"]) == ("5.5", "4.15 to 7.55", "10", "55.0")
    assert (one["left"], one["after"], one["speed"], dense["speed"]) == ("25.0", "after layer 6", "12.3", "12.3")
    assert found.of == "one"
    assert section([costed(None), costed(None)]) is None


def test_shares_are_told_with_the_windows_that_have_them():
    third, sixth, operations = section([costed(COST)]).shares
    assert (third["name"], third["value"], third["range"]) == ("Tokens left after layer 3", f"50.0{SPACE}%", "in every window")
    assert third["bars"] == [(50.0, 100.0)]
    assert (sixth["value"], sixth["range"], sixth["mean"]) == (f"25.0{SPACE}%", f"11.5 to 45.5{SPACE}%", 25.0)
    assert sixth["bars"] == [(10.0, 50.0), (20.0, 100.0), (50.0, 50.0)]
    assert (operations["name"], operations["value"]) == ("Operations", f"55.0{SPACE}%")


def test_heads_that_cost_more_than_they_save_are_told_as_they_are():
    more = TokenCost(operations=(12, 13), macs=(1, 1), left=(), dense_operations=10, dense_macs=1, complete=True)
    (operations,) = section([costed(more)]).shares
    assert (operations["value"], operations["mean"]) == (f"125.0{SPACE}%", 100)
    assert operations["bars"] == [(100 - 100 / BINS, 100.0)]
    assert cells(more)["left"] == NOTHING


def test_layers_that_change_nothing_are_left_out():
    same = TokenCost(
        operations=(1,),
        macs=(1,),
        left=tuple(Left(layer=layer, shares=(share,)) for layer, share in ((1, 0.9), (2, 0.9), (3, 0.8), (4, 0.8))),
        dense_operations=2,
        dense_macs=2,
        complete=True,
    )
    names = [row["name"] for row in section([costed(same)]).shares]
    assert names == ["Tokens left after layer 1", "Tokens left after layer 3", "Operations"]


def test_the_verdict_says_what_is_saved():
    told = sentence(COST, reduce=MATPConfig()).replace(SPACE, " ")
    assert told.startswith("With matp a window takes 55.0 % of the operations of the same network without it")
    assert told.endswith("(90 % of windows: 41.5 to 75.5 %).")
    assert sentence(None, reduce=None) == ""


def test_which_windows_were_counted():
    assert counted_words(COST) == "Counted on 4 windows, all of them that hold data, each alone."
