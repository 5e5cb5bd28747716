from terralean.data.words import listed


def test_five_are_listed_and_the_rest_is_counted():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefgh")) == "a, b, c, d, e and 3 more"
