"""`terralean list`."""

import json


def test_list(terralean):
    assert "lemevit_tiny_light" in terralean("list", "recipes")[1].split()
    assert {"lemevit_tiny", "lemevit_base_light"} <= set(json.loads(terralean("list", "models", "--json")[1]))
    assert terralean("list", "reducer")[0] == 2
