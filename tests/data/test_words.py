from terralean.data.words import counted, listed


def test_five_are_listed_and_the_rest_is_counted():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefgh")) == "a, b, c, d, e and 3 more"


def test_one_has_no_s():
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
