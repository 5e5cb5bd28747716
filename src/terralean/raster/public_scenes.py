"""Facts of public hyperspectral scenes: sizes, names in their files, classes with their pixels, wavelengths, checksums.

Counts of Indian Pines, Salinas, Salinas-A, Pavia, KSC, Botswana and Houston 2013 were counted in the published label maps;
those of the WHU-Hi scenes and Houston 2018 are as publications give them (`counted` is False). A blob id is git's: the SHA-1 of
"blob SIZE", a zero byte and the file's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMap:
    """A published label map of a scene: what each number means, and how many pixels have it. 0 is no label."""

    title: str
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    counts: tuple[int, ...]
    keys: tuple[str, ...] = ()
    counted: bool = True
    crc32: int | None = None  # of its rows as bytes, which also tells where the pixels lie

    @property
    def pixels(self) -> int:
        """Labelled pixels."""
        return sum(self.counts)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicScene:
    """A scene that many publications use."""

    name: str
    sensor: str
    rows: int
    cols: int
    bands: int  # of the file that is used, without those that water takes
    pixel_m: float
    keys: tuple[str, ...]  # of the variable in its .mat file
    labels: tuple[LabelMap, ...]
    raw_bands: int | None = None  # of the file with all bands
    raw_keys: tuple[str, ...] = ()
    removed: tuple[int, ...] = ()  # bands from 1 of the raw file that are left out of the other
    span_nm: tuple[float, float] | None = None  # about what its bands cover
    raw_nm: tuple[float, ...] | None = None  # centres of the bands of the raw file
    blobs: tuple[tuple[str, str], ...] = ()  # names of files and their blob ids
    doubt: str | None = None  # what publications disagree on

    @property
    def used_nm(self) -> tuple[float, ...] | None:
        """Centres of the bands of the file that is used."""
        if self.raw_nm is None:
            return None
        return tuple(nm for position, nm in enumerate(self.raw_nm, start=1) if position not in self.removed)


def _named(
    names: str,
    counts: tuple[int, ...],
    title: str,
    *,
    keys: tuple[str, ...],
    counted: bool = True,
    crc32: int | None = None,
) -> LabelMap:
    """Classes from 1 without a gap."""
    listed = tuple(name.strip() for name in names.split(","))
    numbers = tuple(range(1, len(listed) + 1))
    return LabelMap(title=title, numbers=numbers, names=listed, counts=counts, keys=keys, counted=counted, crc32=crc32)


# Band centres of the AVIRIS flight of 1992 over Indian Pines, as Purdue University publishes them (92AV3C), in nm.
INDIAN_PINES_NM = (
    400.02,
    409.82,
    419.62,
    429.43,
    439.25,
    449.07,
    458.90,
    468.73,
    478.57,
    488.41,
    498.26,
    508.12,
    517.98,
    527.85,
    537.72,
    547.60,
    557.49,
    567.38,
    577.28,
    587.18,
    597.09,
    607.01,
    616.93,
    626.85,
    636.78,
    646.72,
    656.67,
    666.61,
    676.57,
    686.53,
    696.50,
    686.91,
    696.55,
    706.19,
    715.83,
    725.47,
    735.11,
    744.74,
    754.38,
    764.01,
    773.64,
    783.27,
    792.91,
    802.53,
    812.16,
    821.79,
    831.41,
    841.04,
    850.66,
    860.28,
    869.91,
    879.53,
    889.14,
    898.76,
    908.38,
    917.99,
    927.61,
    937.22,
    946.83,
    956.45,
    966.06,
    975.66,
    985.27,
    994.88,
    1004.48,
    1014.09,
    1023.69,
    1033.29,
    1042.89,
    1052.49,
    1062.09,
    1071.69,
    1081.29,
    1090.88,
    1100.48,
    1110.07,
    1119.66,
    1129.25,
    1138.84,
    1148.43,
    1158.02,
    1167.61,
    1177.19,
    1186.77,
    1196.36,
    1205.94,
    1215.52,
    1225.10,
    1234.68,
    1244.26,
    1253.83,
    1263.41,
    1272.98,
    1282.55,
    1273.00,
    1282.96,
    1292.93,
    1302.89,
    1312.85,
    1322.81,
    1332.77,
    1342.73,
    1352.68,
    1362.64,
    1372.59,
    1382.54,
    1392.49,
    1402.44,
    1412.39,
    1422.34,
    1432.28,
    1442.23,
    1452.17,
    1462.11,
    1472.05,
    1481.99,
    1491.92,
    1501.86,
    1511.79,
    1521.73,
    1531.66,
    1541.59,
    1551.52,
    1561.44,
    1571.37,
    1581.30,
    1591.22,
    1601.14,
    1611.06,
    1620.98,
    1630.90,
    1640.81,
    1650.73,
    1660.64,
    1670.56,
    1680.47,
    1690.38,
    1700.28,
    1710.19,
    1720.10,
    1730.00,
    1739.90,
    1749.81,
    1759.71,
    1769.60,
    1779.50,
    1789.40,
    1799.29,
    1809.19,
    1819.08,
    1828.97,
    1838.86,
    1848.75,
    1858.63,
    1868.52,
    1878.40,
    1888.28,
    1883.24,
    1893.25,
    1903.26,
    1913.26,
    1923.27,
    1933.27,
    1943.27,
    1953.26,
    1963.25,
    1973.24,
    1983.23,
    1993.22,
    2003.20,
    2013.18,
    2023.16,
    2033.13,
    2043.10,
    2053.07,
    2063.04,
    2073.00,
    2082.97,
    2092.92,
    2102.88,
    2112.83,
    2122.78,
    2132.73,
    2142.68,
    2152.62,
    2162.56,
    2172.50,
    2182.43,
    2192.37,
    2202.30,
    2212.22,
    2222.15,
    2232.07,
    2241.99,
    2251.90,
    2261.82,
    2271.73,
    2281.64,
    2291.54,
    2301.45,
    2311.35,
    2321.25,
    2331.14,
    2341.03,
    2350.92,
    2360.81,
    2370.70,
    2380.58,
    2390.46,
    2400.33,
    2410.21,
    2420.08,
    2429.95,
    2439.81,
    2449.68,
    2459.54,
    2469.40,
    2479.25,
    2489.11,
    2498.96,
)
INDIAN_PINES_CLASSES = (
    "Alfalfa, Corn-notill, Corn-mintill, Corn, Grass-pasture, Grass-trees, Grass-pasture-mowed, Hay-windrowed, Oats, "
    "Soybean-notill, Soybean-mintill, Soybean-clean, Wheat, Woods, Buildings-Grass-Trees-Drives, Stone-Steel-Towers"
)
SALINAS_CLASSES = (
    "Brocoli_green_weeds_1, Brocoli_green_weeds_2, Fallow, Fallow_rough_plow, Fallow_smooth, Stubble, Celery, "
    "Grapes_untrained, Soil_vinyard_develop, Corn_senesced_green_weeds, Lettuce_romaine_4wk, Lettuce_romaine_5wk, "
    "Lettuce_romaine_6wk, Lettuce_romaine_7wk, Vinyard_untrained, Vinyard_vertical_trellis"
)
SALINAS_A_NUMBERS = (1, 10, 11, 12, 13, 14)
HOUSTON_2013_CLASSES = (
    "Healthy grass, Stressed grass, Synthetic grass, Trees, Soil, Water, Residential, Commercial, Road, Highway, Railway, "
    "Parking Lot 1, Parking Lot 2, Tennis Court, Running Track"
)
INDIAN_PINES_WATER = (*range(104, 109), *range(150, 164), 220)
SALINAS_WATER = (*range(108, 113), *range(154, 168), 224)
AVIRIS_NM = (370.0, 2500.0)

INDIAN_PINES = PublicScene(
    name="Indian Pines",
    sensor="AVIRIS, 1992",
    rows=145,
    cols=145,
    bands=200,
    pixel_m=20.0,
    keys=("indian_pines_corrected",),
    raw_bands=220,
    raw_keys=("indian_pines",),
    removed=INDIAN_PINES_WATER,
    raw_nm=INDIAN_PINES_NM,
    span_nm=(400.0, 2500.0),
    labels=(
        _named(
            INDIAN_PINES_CLASSES,
            (46, 1428, 830, 237, 483, 730, 28, 478, 20, 972, 2455, 593, 205, 1265, 386, 93),
            "the label map of UPV/EHU, 10249 px",
            keys=("indian_pines_gt",),
            crc32=0xA26438A5,
        ),
        _named(
            INDIAN_PINES_CLASSES,
            (54, 1434, 834, 234, 497, 747, 26, 489, 20, 968, 2468, 614, 212, 1294, 380, 95),
            "the label map of Purdue University, 10366 px",
            keys=(),
        ),
    ),
    blobs=(
        ("Indian_pines_corrected.mat", "75b6d6e7df046fce91eda23e7559e274c92da711"),
        ("Indian_pines_gt.mat", "8e308e6d2ad7cbb81dc1cd7849a2b7b768f4be6d"),
    ),
)
INDIAN_PINES_PART = PublicScene(
    name="Indian Pines, rows 31 to 115 and columns 26 to 95",
    sensor="AVIRIS, 1992",
    rows=85,
    cols=70,
    bands=200,
    pixel_m=20.0,
    keys=(),
    raw_bands=220,
    removed=INDIAN_PINES_WATER,
    raw_nm=INDIAN_PINES_NM,
    span_nm=(400.0, 2500.0),
    labels=(
        _named(
            "Corn-notill, Grass-trees, Soybean-notill, Soybean-mintill",
            (1005, 730, 732, 1924),
            "its label map of four classes, 4391 px",
            keys=(),
            crc32=0x6BFC1457,
        ),
    ),
    blobs=(("Indian_part.mat", "e571c217ef5ac5e033171225c3ace876b9e1a7cd"),),
)
SALINAS = PublicScene(
    name="Salinas",
    sensor="AVIRIS, 1998",
    rows=512,
    cols=217,
    bands=204,
    pixel_m=3.7,
    keys=("salinas_corrected",),
    raw_bands=224,
    raw_keys=("salinas",),
    removed=SALINAS_WATER,
    span_nm=AVIRIS_NM,
    labels=(
        _named(
            SALINAS_CLASSES,
            (2009, 3726, 1976, 1394, 2678, 3959, 3579, 11271, 6203, 3278, 1068, 1927, 916, 1070, 7268, 1807),
            "the label map of UPV/EHU, 54129 px",
            keys=("salinas_gt",),
            crc32=0xD27AB1F6,
        ),
    ),
    blobs=(
        ("Salinas_corrected.mat", "2a745377a77369bd5a9d430c722f0bf5e0d0ffc1"),
        ("Salinas_gt.mat", "a0781d95c9fa20bb3c31751a0cf24b7dc09be65b"),
    ),
)
SALINAS_A = PublicScene(
    name="Salinas-A",
    sensor="AVIRIS, 1998",
    rows=83,
    cols=86,
    bands=204,
    pixel_m=3.7,
    keys=("salinasA_corrected",),
    raw_bands=224,
    raw_keys=("salinasA",),
    removed=SALINAS_WATER,
    span_nm=AVIRIS_NM,
    labels=(
        LabelMap(
            title="the label map of UPV/EHU, 5348 px, with the class numbers of Salinas",
            numbers=SALINAS_A_NUMBERS,
            names=tuple(SALINAS_CLASSES.split(", ")[number - 1] for number in SALINAS_A_NUMBERS),
            counts=(391, 1343, 616, 1525, 674, 799),
            keys=("salinasA_gt",),
            crc32=0x3935BDC5,
        ),
    ),
    blobs=(
        ("SalinasA_corrected.mat", "90ca5fd2a4e06691605112d6c168d2e682c3e95f"),
        ("SalinasA_gt.mat", "68eb51f938e2305c5d7ca61a0ee5906516d70008"),
    ),
)
PAVIA_UNIVERSITY = PublicScene(
    name="Pavia University",
    sensor="ROSIS",
    rows=610,
    cols=340,
    bands=103,
    pixel_m=1.3,
    keys=("paviaU",),
    span_nm=(430.0, 860.0),
    labels=(
        _named(
            "Asphalt, Meadows, Gravel, Trees, Painted metal sheets, Bare Soil, Bitumen, Self-Blocking Bricks, Shadows",
            (6631, 18649, 2099, 3064, 1345, 5029, 1330, 3682, 947),
            "the label map of UPV/EHU, 42776 px",
            keys=("paviaU_gt",),
        ),
    ),
    blobs=(
        ("PaviaU.mat", "6eecc933bedec1130bb046483dd12e25cf091b24"),
        ("PaviaU_gt.mat", "85d57a7f2fec6fc2b05a810b31808b88f9357dc6"),
    ),
)
PAVIA_CENTRE = PublicScene(
    name="Pavia Centre",
    sensor="ROSIS",
    rows=1096,
    cols=715,
    bands=102,
    pixel_m=1.3,
    keys=("pavia",),
    span_nm=(430.0, 860.0),
    labels=(
        _named(
            "Water, Trees, Asphalt, Self-Blocking Bricks, Bitumen, Tiles, Shadows, Meadows, Bare Soil",
            (65971, 7598, 3090, 2685, 6584, 9248, 7287, 42826, 2863),
            "the label map of UPV/EHU, 148152 px",
            keys=("pavia_gt",),
            crc32=0x54932B38,
        ),
    ),
    blobs=(("Pavia_gt.mat", "dfc83e45a917a530e8e2c1e3137c08c8bc3db23e"),),
    doubt="publications name its classes 3 to 9 in two orders, the other is Meadows, Bricks, Bare Soil, Asphalt, Bitumen, "
    "Tiles, Shadows; scores do not depend on it",
)
KSC = PublicScene(
    name="Kennedy Space Center",
    sensor="AVIRIS, 1996",
    rows=512,
    cols=614,
    bands=176,
    pixel_m=18.0,
    keys=("KSC",),
    span_nm=(400.0, 2500.0),
    labels=(
        _named(
            "Scrub, Willow swamp, Cabbage palm hammock, Cabbage palm/oak hammock, Slash pine, Oak/broadleaf hammock, "
            "Hardwood swamp, Graminoid marsh, Spartina marsh, Cattail marsh, Salt marsh, Mud flats, Water",
            (761, 243, 256, 252, 161, 229, 105, 431, 520, 404, 419, 503, 927),
            "the label map of UPV/EHU, 5211 px",
            keys=("KSC_gt",),
            crc32=0x458E6AF2,
        ),
    ),
    blobs=(("KSC_gt.mat", "8efeec7529b8789152aecf4d3a8197e94daeb363"),),
)
BOTSWANA = PublicScene(
    name="Botswana",
    sensor="Hyperion, 2001",
    rows=1476,
    cols=256,
    bands=145,
    pixel_m=30.0,
    keys=("Botswana",),
    span_nm=(400.0, 2500.0),
    labels=(
        _named(
            "Water, Hippo grass, Floodplain grasses 1, Floodplain grasses 2, Reeds, Riparian, Firescar, Island interior, "
            "Acacia woodlands, Acacia shrublands, Acacia grasslands, Short mopane, Mixed mopane, Exposed soils",
            (270, 101, 251, 215, 269, 269, 259, 203, 314, 248, 305, 181, 268, 95),
            "the label map of UPV/EHU, 3248 px",
            keys=("Botswana_gt",),
            crc32=0xC4F3E09E,
        ),
    ),
    blobs=(("Botswana_gt.mat", "f5267c777fdde2997b6c49d1e14f93e671524c45"),),
)
HOUSTON_2013 = PublicScene(
    name="Houston 2013",
    sensor="CASI, 2012",
    rows=349,
    cols=1905,
    bands=144,
    pixel_m=2.5,
    keys=(),
    span_nm=(364.0, 1046.0),
    labels=(
        _named(
            HOUSTON_2013_CLASSES,
            (198, 190, 192, 188, 186, 182, 196, 191, 193, 191, 181, 192, 184, 181, 187),
            "the training part of the IEEE GRSS contest of 2013, 2832 px",
            keys=("houston_gt_tr",),
            crc32=0x73357BC,
        ),
        _named(
            HOUSTON_2013_CLASSES,
            (1053, 1064, 505, 1056, 1056, 143, 1072, 1053, 1059, 1036, 1054, 1041, 285, 247, 473),
            "the test part of the IEEE GRSS contest of 2013, 12197 px",
            keys=("houston_gt_te",),
            crc32=0x14153984,
        ),
        _named(
            HOUSTON_2013_CLASSES,
            (1251, 1254, 697, 1244, 1242, 325, 1268, 1244, 1252, 1227, 1235, 1233, 469, 428, 660),
            "both parts of the IEEE GRSS contest of 2013, 15029 px",
            keys=("houston_gt",),
            crc32=0xE8DBFCDF,
        ),
    ),
    blobs=(("houston_gt.mat", "fcd598bd66da0d9b935d6080d774bae1ab126b43"),),
)
HOUSTON_2018 = PublicScene(
    name="Houston 2018",
    sensor="CASI, 2017",
    rows=601,
    cols=2384,
    bands=48,
    raw_bands=50,
    removed=(49, 50),
    pixel_m=1.0,
    keys=(),
    span_nm=(380.0, 1050.0),
    labels=(
        _named(
            "Healthy grass, Stressed grass, Artificial turf, Evergreen trees, Deciduous trees, Bare earth, Water, "
            "Residential buildings, Non-residential buildings, Roads, Sidewalks, Crosswalks, Major thoroughfares, Highways, "
            "Railways, Paved parking lots, Unpaved parking lots, Cars, Trains, Stadium seats",
            (
                *(9799, 32502, 684, 13595, 5021, 4516, 266, 39772, 223752, 45866),
                *(34029, 1518, 46348, 9865, 6937, 11500, 146, 6547, 5369, 6824),
            ),
            "the training labels of the IEEE GRSS contest of 2018 at 1 m, 504856 px",
            keys=(),
            counted=False,
        ),
    ),
)
LONGKOU = PublicScene(
    name="WHU-Hi LongKou",
    sensor="Headwall Nano-Hyperspec, 2018",
    rows=550,
    cols=400,
    bands=270,
    pixel_m=0.463,
    keys=("WHU_Hi_LongKou",),
    span_nm=(400.0, 1000.0),
    labels=(
        _named(
            "Corn, Cotton, Sesame, Broad-leaf soybean, Narrow-leaf soybean, Rice, Water, Roads and houses, Mixed weed",
            (34511, 8374, 3031, 63212, 4151, 11854, 67056, 7124, 5229),
            "its label map, 204542 px",
            keys=("WHU_Hi_LongKou_gt",),
            counted=False,
        ),
    ),
)
HANCHUAN = PublicScene(
    name="WHU-Hi HanChuan",
    sensor="Headwall Nano-Hyperspec, 2016",
    rows=1217,
    cols=303,
    bands=274,
    pixel_m=0.109,
    keys=("WHU_Hi_HanChuan",),
    span_nm=(400.0, 1000.0),
    labels=(
        _named(
            "Strawberry, Cowpea, Soybean, Sorghum, Water spinach, Watermelon, Greens, Trees, Grass, Red roof, Gray roof, "
            "Plastic, Bare soil, Road, Bright object, Water",
            (
                *(44735, 22753, 10287, 5353, 1200, 4533, 5903, 17978, 9469, 10516),
                *(16911, 3679, 9116, 18560, 1136, 75401),
            ),
            "its label map, 257530 px",
            keys=("WHU_Hi_HanChuan_gt",),
            counted=False,
        ),
    ),
)
HONGHU = PublicScene(
    name="WHU-Hi HongHu",
    sensor="Headwall Nano-Hyperspec, 2017",
    rows=940,
    cols=475,
    bands=270,
    pixel_m=0.043,
    keys=("WHU_Hi_HongHu",),
    span_nm=(400.0, 1000.0),
    labels=(
        _named(
            "Red roof, Road, Bare soil, Cotton, Cotton firewood, Rape, Chinese cabbage, Pakchoi, Cabbage, Tuber mustard, "
            "Brassica parachinensis, Brassica chinensis, Small Brassica chinensis, Lactuca sativa, Celtuce, "
            "Film covered lettuce, Romaine lettuce, Carrot, White radish, Garlic sprout, Broad bean, Tree",
            (
                *(14041, 3512, 21821, 163285, 6218, 44557, 24103, 4054, 10819, 12394, 11015),
                *(8954, 22507, 7356, 1002, 7262, 3010, 3217, 8712, 3486, 1328, 4040),
            ),
            "its label map, 386693 px",
            keys=("WHU_Hi_HongHu_gt",),
            counted=False,
        ),
    ),
)

PUBLIC_SCENES = (
    INDIAN_PINES,
    INDIAN_PINES_PART,
    SALINAS,
    SALINAS_A,
    PAVIA_UNIVERSITY,
    PAVIA_CENTRE,
    KSC,
    BOTSWANA,
    HOUSTON_2013,
    HOUSTON_2018,
    LONGKOU,
    HANCHUAN,
    HONGHU,
)
