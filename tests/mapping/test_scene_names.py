import pytest

from terralean.mapping.scenes import find_scenes


@pytest.mark.parametrize(
    ("said", "stem"),
    [
        ("", "cube"),
        ("#key=group/name", "cube_group_name"),
        ("#X", "cube_X"),
        ("#axes=bcr", "cube"),
        ("#key=X,axes=bcr", "cube_X"),
    ],
)
def test_a_map_is_called_by_the_file_and_its_variable(tmp_path, said, stem):
    (tmp_path / "cube.mat").write_bytes(b"")
    assert find_scenes([f"{tmp_path / 'cube.mat'}{said}"])[0].stem == stem
