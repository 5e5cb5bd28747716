from dataclasses import replace

import pytest
import yaml

from terralean import recipes
from terralean.data.scene_config import SceneDataConfig, SceneSplitConfig
from terralean.errors import ConfigError, RunError, TerraleanError, UnknownName
from terralean.train.config import to_yaml


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_reads_and_survives_its_own_yaml(name):
    experiment = recipes.read(name)
    assert recipes.parse(yaml.safe_load(to_yaml(experiment)), source=name) == experiment


@pytest.mark.parametrize("name", ["lemevit_tiny_upernet", "swin_tiny_upernet"])
def test_recipes_to_compare_differ_in_the_model_alone(name):
    light, other = recipes.read("lemevit_tiny_light"), recipes.read(name)
    assert other.model.name == name
    assert other.model.sizes == light.model.sizes
    assert replace(other, model=light.model) == light


def test_changes_reach_any_depth_and_are_written_as_yaml():
    experiment = recipes.read(
        "lemevit_tiny_light",
        changes=["train.lr=3e-4", "data.split.test=0.1", "data.classes=[field, forest]", "train.loss.dice=0", "seed=7"],
    )
    assert experiment.train.lr == 3e-4
    assert experiment.data.split.test == 0.1
    assert experiment.data.classes == ("field", "forest")
    assert experiment.train.loss.dice == 0
    assert experiment.seed == 7


def test_sizes_keep_the_types_that_yaml_gives_them():
    changes = ["model.sizes={drop_path: 0.5, width: 64, backbone: resnet18, auxiliary: false}"]
    sizes = recipes.read("lemevit_tiny_light", changes=changes).model.sizes
    assert [(key, type(value), value) for key, value in sizes.items()] == [
        ("drop_path", float, 0.5),
        ("width", int, 64),
        ("backbone", str, "resnet18"),
        ("auxiliary", bool, False),
    ]


def test_a_section_that_may_be_left_out_may_be_null():
    listed = 'data.split.listed={train: ["2_10", b], test: [c]}'
    experiment = recipes.read("lemevit_tiny_light", changes=[listed])
    assert experiment.data.split.listed.train == ("2_10", "b")
    assert recipes.parse(yaml.safe_load(to_yaml(experiment)), source="") == experiment
    assert recipes.read("lemevit_tiny_light", changes=[listed, "data.split.listed=null"]).data.split.listed is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.split.listed={tain: [a]}", r"no setting data\.split\.listed\.tain; nearest: data\.split\.listed\.train"),
        ("data.split.listed={train: [2_10]}", r"data\.split\.listed\.train\.0: .*valid string, got 210"),
        ("data=null", "data must be a section with keys, got None"),
        ("train.lrr=1", r"no setting train\.lrr; nearest: train\.lr"),
        ("data.split.tset=0.3", r"no setting data\.split\.tset; nearest: data\.split\.test"),
        ("trian.lr=2", r"no setting trian; nearest: train"),
        ("train.lr=abc", r"train\.lr: .*got 'abc'"),
        ("train.steps=0", r"train\.steps must be above 0, got 0"),
        ("train.warmup_steps=1000", "leaves nothing of 1000 steps; lower it, e.g. --set train.warmup_steps=100"),
        ("train.ema_decay=1.0", "ema_decay must be 0 up to below 1"),
        ("train.workers=-1", r"train\.workers must be 0 or more, got -1"),
        ("train.final_lr=-1", r"train\.final_lr must be 0 or more, got -1"),
        ("train.lr=.nan", r"train\.lr must be above 0, got nan"),
        ("train.warmup_steps=-3", r"train\.warmup_steps must be 0 or more, got -3"),
        ("train.patience=0", r"train\.patience must be 1 or more, or null for no end before the last step, got 0"),
        ("train.clip_norm=-1", r"train\.clip_norm must be above 0, got -1"),
        ("train.loss.dice=-1", r"train\.loss\.dice must be 0 or more, got -1"),
        ("train.loss.label_smoothing=2", r"train\.loss\.label_smoothing must be 0 up to below 1, got 2"),
        ("tiling.tile_px=0", r"tiling\.tile_px must be 32 or more, got 0"),
        ("tiling.tile_px=224", r"tiling\.overlap_px must be 0 to half of tiling\.tile_px \(112 px of 224\), got 128"),
        ("tiling.overlap_px=-1", r"tiling\.overlap_px must be 0 to half"),
        ("data.classes=a", r"data\.classes: a list is written in brackets, e\.g\. data\.classes=\[a\], got 'a'"),
        ("data=3", "data must be a section with keys, got 3"),
        ("train.schedule=step", r"train\.schedule: .*'cosine' or 'poly'"),
        ("lr", "is not key=value"),
        ("train.lr=[1", "the value is not YAML"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        recipes.read("lemevit_tiny_light", changes=[change])


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(UnknownName, match="nearest: lemevit_tiny_light"):
        recipes.read("lemevit_tiny_ligth")


def test_unknown_recipe_without_a_near_one():
    with pytest.raises(UnknownName, match=r"no recipe 'qqqq'; terralean list recipes names all; a file of your own"):
        recipes.read("qqqq")


def test_missing_recipe_file(tmp_path):
    with pytest.raises(UnknownName, match=r"no recipe file at .*mine\.yaml"):
        recipes.read(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("text", "message"), [(b"- a\n- b\n", "holds list"), (b"a: [", "is not YAML"), (b"\xff\xfe", "is not text")]
)
def test_file_that_is_no_recipe(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        recipes.read(str(tmp_path / "mine.yaml"))


def test_missing_key_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("task: segmentation\nmodel: {name: lemevit_tiny_light}\ntrain: {steps: 9}\n")
    with pytest.raises(ConfigError, match=r"train\.validate_every: Field required"):
        recipes.read(str(tmp_path / "mine.yaml"))


def test_folder_that_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"has no recipe\.yaml"):
        recipes.read_run(tmp_path)


def test_changes_are_a_list():
    with pytest.raises(ConfigError, match=r"changes are a list of key=value, got the text 'train\.steps=5'"):
        recipes.read("lemevit_tiny_light", changes="train.steps=5")


@pytest.mark.parametrize(
    ("recipe", "change", "message"),
    [
        ("lemevit_tiny_light", "model.name=lemevit_tiny", "lemevit_tiny recognises whole images.*lemevit_tiny_light"),
        ("imagenet_lemevit_tiny", "model.name=lemevit_tiny_light", "lemevit_tiny_light maps pixels.*lemevit_tiny"),
        ("imagenet_lemevit_tiny", "model.shrink=2", r"model\.shrink is for maps of pixels.*data\.size_px"),
        ("imagenet_lemevit_tiny", "train.loss.dice=1", r"no setting train\.loss; nearest: train\."),
        ("lemevit_tiny_light", "task=recognition", "task 'recognition'; write task: and one of segmentation, classification"),
    ],
)
def test_a_recipe_holds_what_its_task_knows(recipe, change, message):
    with pytest.raises(ConfigError, match=message):
        recipes.read(recipe, changes=[change])


def test_a_recipe_names_its_task(tmp_path):
    (tmp_path / "mine.yaml").write_text("model: {name: lemevit_tiny}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: no task; write task: and one of segmentation, classification"):
        recipes.read(str(tmp_path / "mine.yaml"))


def test_how_a_run_of_scene_recognition_reads_its_images(tmp_path):
    assert recipes.read_scene_data(tmp_path) is None  # a checkpoint alone
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(recipes.read("lemevit_tiny_light")))
    assert recipes.read_scene_data(tmp_path) is None  # of pixels
    experiment = recipes.read("ucm82_lemevit_tiny", changes=["data.views=many"])
    recipe.write_text(to_yaml(experiment))
    data = recipes.read_scene_data(tmp_path)
    assert data == experiment.data
    assert (data.views, data.resize_px, data.colour) == ("many", 256, "rgb")


def test_data_settings_without_a_recipe():
    found = recipes.data_settings(SceneDataConfig, ["data.views=many", "data.split.test=0.5"])
    assert found == SceneDataConfig(views="many", split=SceneSplitConfig(test=0.5))
    with pytest.raises(ConfigError, match=r"no setting data\.view; nearest: data\.views"):
        recipes.data_settings(SceneDataConfig, ["data.view=many"])
    with pytest.raises(ConfigError, match=r"--set train: only data\.key=value has a meaning here"):
        recipes.data_settings(SceneDataConfig, ["train.lr=1"])


def test_a_recipe_like_another_differs_in_what_it_says(tmp_path):
    (tmp_path / "one.yaml").write_text(
        "like: vit_tiny_segvit\nmodel: {sizes: {image_px: 64}}\ntrain: {steps: 7, warmup_steps: 1}\n"
    )
    (tmp_path / "two.yaml").write_text("like: one.yaml\ndata:\n  tile_px: 64\nseed: 3\n")
    base, two = recipes.read("vit_tiny_segvit"), recipes.read(str(tmp_path / "two.yaml"))
    assert two.model.sizes == {**base.model.sizes, "image_px": 64}
    assert two.train == replace(base.train, steps=7, warmup_steps=1)
    assert (two.data, two.seed) == (replace(base.data, tile_px=64), 3)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ("mine.yaml", "leads back to"),
        ("lemevit_tny_light", "nearest: lemevit_tiny_light"),
        ("[a]", "like: names a recipe or a .yaml file, got ['a']"),
        ("gone.yaml", "no recipe file at"),
    ],
)
def test_like_what_is_no_recipe(tmp_path, like, message):
    (tmp_path / "mine.yaml").write_text(f"like: {like}\n")
    with pytest.raises(TerraleanError) as error:
        recipes.read(str(tmp_path / "mine.yaml"))
    assert message in str(error.value)
