"""Scenes in STAC files: an item, or the items that a search found (STAC 1.0 and 1.1, stacspec.org)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from terralean.errors import BandMismatch, UnreadableScene
from terralean.raster.acquired import Acquired
from terralean.spec import Bands

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
VSI = {  # how GDAL reads what is not here
    **dict.fromkeys(("http", "https", "ftp"), "/vsicurl/{url}"),
    **dict.fromkeys(("s3",), "/vsis3/{rest}"),
    **dict.fromkeys(("gs",), "/vsigs/{rest}"),
    **dict.fromkeys(("az", "abfs", "abfss"), "/vsiaz/{rest}"),
    **dict.fromkeys(("oss",), "/vsioss/{rest}"),
}
NO_IMAGES = {"thumbnail", "overview", "metadata", "data-mask"}
PICTURE = "visual"  # the role of what is made to be looked at
IMAGES = re.compile(r"image/|application/(x-)?(hdf5?|netcdf|geotiff)", re.IGNORECASE)
SUFFIXES = re.compile(r"\.(tiff?|jp2|vrt|img|nc|h5|hdf5?|png|jpe?g)$", re.IGNORECASE)
NEAR_NM = 20.0  # bands whose middles are further apart see different things
SENSOR = ("platform", "instruments", "constellation", "mission")
TOLD_BY_ITEM = "the scene's STAC item"


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemBand:
    """A band of an asset, as far as it is described."""

    name: str | None
    common: str | None  # eo:common_name
    nm: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """A file of an item that may be an image."""

    key: str
    path: str  # what GDAL opens
    geotiff: bool
    picture: bool
    dtype: str | None
    bands: tuple[ItemBand, ...]  # in the order of the file; empty where nothing is said of them


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A STAC item."""

    id: str
    file: str  # it stands in
    images: tuple[Asset, ...]
    others: tuple[str, ...]  # keys of assets that are none
    acquired: Acquired
    sensor: Mapping[str, Any]
    address: str  # its own where it says so, else the file

    @property
    def called(self) -> str:
        """For people."""
        return f"{self.file}, item {self.id}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A band of a file."""

    path: str
    position: int  # from 1


def is_stac(path: str) -> bool:
    """Whether a path is that of a file which may hold items."""
    return Path(path).suffix.lower() in {".json", ".geojson"} and os.path.isfile(path)


def read_items(path: str) -> list[Item]:
    """The items of a file. Raises UnreadableScene where it holds none."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UnreadableScene(f"{path} is not JSON ({error}); expected a STAC item or a collection of items") from error
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "Feature":
        return [_item(document, file=path, alone=True)]
    if kind == "FeatureCollection" and document.get("features"):
        return [_item(feature, file=path, alone=False) for feature in document["features"]]
    what = {
        "FeatureCollection": "holds no items: the search found nothing",
        "Collection": "is a STAC collection, not its items",
        "Catalog": "is a STAC catalog, not its items",
    }
    raise UnreadableScene(
        f"{path} {what.get(str(kind), 'is no STAC file')}; expected a STAC item or a collection of items, as a search gives it"
    )


def find_parts(item: Item, need: Bands, *, assets: Sequence[str] | None = None) -> tuple[Part, ...] | str:
    """Where each band that is needed is, in their order; or the path of the one file that there is, to be taken as it is.

    A band is the one of the same name or common name, else the one at the nearest wavelength. Where several assets have it,
    values of the type that is needed count for more than others, data for more than a picture of it, and GeoTIFF for more than
    other formats. `assets` are keys of the only ones to look at; as many as bands, with one each, are these bands. Raises
    BandMismatch where a band is not there or may be two, UnreadableScene where there is no image.
    """
    choice = images(item, assets)
    if assets is not None and len(choice) == len(need) and all(len(asset.bands) <= 1 for asset in choice):
        return tuple(Part(path=asset.path, position=1) for asset in choice)
    found = {name: _best(item, choice, need, index) for index, name in enumerate(need.names)}
    parts = tuple(part for part in found.values() if part is not None)
    if len(parts) == len(need):
        return parts
    if len(choice) == 1 and not parts and (not choice[0].bands or not need.named):
        return choice[0].path
    missing = [name for name, part in found.items() if part is None]
    raise BandMismatch(
        f"{item.called}: no asset has {', '.join(missing)}\n  item: {', '.join(map(_described, choice))}\n  model: "
        f"{', '.join(need.names)}\nname the assets of the model's bands, in their order, with --assets"
    )


def images(item: Item, assets: Sequence[str] | None = None) -> tuple[Asset, ...]:
    """Assets that may be images, or those of these keys."""
    by_key = {asset.key: asset for asset in item.images}
    if not by_key:
        raise UnreadableScene(f"{item.called} has no image, only {', '.join(item.others) or 'nothing'}; use another item")
    unknown = [key for key in assets or () if key not in by_key]
    if unknown:
        raise BandMismatch(f"{item.called} has no image asset {', '.join(unknown)}; it has {', '.join(by_key)}")
    return tuple(by_key[key] for key in (by_key if assets is None else assets))


def gdal_path(href: str) -> str:
    """What GDAL opens for an address: `/vsicurl/https://...`; a path remains as it is."""
    if not URL.match(href):
        return href
    scheme, _, rest = href.partition("://")
    if scheme.lower() == "file":
        return unquote(urlsplit(href).path)
    return VSI[scheme.lower()].format(url=href, rest=rest) if scheme.lower() in VSI else href


def _item(feature: Any, *, file: str, alone: bool) -> Item:
    """An item of a document; only what stands alone is known to lie where the file is."""
    if not isinstance(feature, dict) or "id" not in feature or not isinstance(feature.get("assets"), dict):
        raise UnreadableScene(
            f"{file} has a feature without id or assets: no STAC item; expected items, as a search gives them"
        )
    links = {str(link.get("rel")): str(link.get("href")) for link in feature.get("links", ())}
    own = links.get("self", "")
    base = own if not alone and (URL.match(own) or os.path.isabs(own)) else os.path.abspath(file)
    properties = feature.get("properties") or {}
    known = {band["name"]: band for band in _bands(properties) if "name" in band}
    found = {key: _asset(key, asset, base=base, known=known) for key, asset in feature["assets"].items()}
    return Item(
        id=str(feature["id"]),
        file=file,
        images=tuple(asset for asset in found.values() if asset is not None),
        others=tuple(key for key, asset in found.items() if asset is None),
        acquired=_acquired(properties),
        sensor={key: properties[key] for key in SENSOR if properties.get(key)},
        address=own if URL.match(own) else file,
    )


def _asset(key: str, asset: Mapping[str, Any], *, base: str, known: Mapping[str, Mapping[str, Any]]) -> Asset | None:
    """An asset that may be an image."""
    href, media, roles = str(asset.get("href", "")), str(asset.get("type", "")), set(asset.get("roles") or ())
    image = IMAGES.match(media) if media else SUFFIXES.search(urlsplit(href).path)
    if not href or not image or roles & NO_IMAGES:
        return None
    described = _bands(asset) or ([dict(asset)] if asset.get("eo:common_name") else [])
    types = {str(band["data_type"]) for band in [asset, *described] if band.get("data_type")}
    return Asset(
        key=key,
        path=gdal_path(_resolved(href, base)),
        geotiff="tiff" in media.lower() or bool(re.search(r"\.tiff?$", urlsplit(href).path, re.IGNORECASE)),
        picture=PICTURE in roles,
        dtype=types.pop() if len(types) == 1 else None,
        bands=tuple(_band({**known.get(str(band.get("name")), {}), **band}) for band in described),
    )


def _bands(where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is said of bands: in `bands` since STAC 1.1, before in two lists beside each other."""
    if where.get("bands"):
        return list(where["bands"])
    eo, raster = where.get("eo:bands") or [], where.get("raster:bands") or []
    if not eo:
        return list(raster)
    return [{**more, **band} for band, more in zip(eo, raster if len(raster) == len(eo) else [{}] * len(eo), strict=True)]


def _band(said: Mapping[str, Any]) -> ItemBand:
    def first(*keys: str) -> Any:
        return next((said[key] for key in keys if said.get(key) is not None), None)

    name, common = first("name"), first("eo:common_name", "common_name")
    um = first("eo:center_wavelength", "center_wavelength")
    return ItemBand(
        name=None if name is None else str(name),
        common=None if common is None else str(common),
        nm=None if um is None else round(float(um) * 1000, 4),
    )


def _acquired(properties: Mapping[str, Any]) -> Acquired:
    if properties.get("datetime"):
        return Acquired(moment=str(properties["datetime"]), told_by=TOLD_BY_ITEM)
    start, end = properties.get("start_datetime"), properties.get("end_datetime")
    return Acquired(start=str(start), end=str(end), told_by=TOLD_BY_ITEM) if start and end else Acquired()


def _resolved(href: str, base: str) -> str:
    """An address, seen from the file or the address of its item."""
    if URL.match(href) or os.path.isabs(href) or href.startswith("/vsi"):
        return href
    if URL.match(base):
        return urljoin(base, href)
    beside = os.path.normpath(os.path.join(os.path.dirname(base), href))
    return beside if os.path.exists(beside) else os.path.normpath(os.path.join(os.path.dirname(base), unquote(href)))


def _best(item: Item, choice: Iterable[Asset], need: Bands, index: int) -> Part | None:
    """Where one of the bands that are needed is."""
    name = need.names[index].casefold()
    nm = need.wavelength_nm[index] if need.wavelength_nm else None
    every = [(asset, position, band) for asset in choice for position, band in enumerate(_listed(asset), start=1)]
    named = [one for one in every if name in _names(one[0], one[2])]
    near = [(abs(band.nm - nm), asset, position, band) for asset, position, band in every if band.nm and nm]
    least = min((away for away, *_ in near), default=NEAR_NM + 1)
    nearest = [(asset, position, band) for away, asset, position, band in near if away == least <= NEAR_NM]
    found = named or nearest
    return _only(item, found, need, index) if found else None


def _only(item: Item, found: Sequence[tuple[Asset, int, ItemBand]], need: Bands, index: int) -> Part:
    """The best of some bands that may be meant."""
    ranks = [_rank(asset, need) for asset, *_ in found]
    best = [one for one, rank in zip(found, ranks, strict=True) if rank == min(ranks)]
    if len(best) > 1:
        keys = ", ".join(f"{asset.key} (band {position})" for asset, position, _ in best)
        raise BandMismatch(
            f"{item.called}: {need.names[index]} may be {keys}; name the assets of the model's bands, in their order, with "
            f"--assets"
        )
    asset, position, _ = best[0]
    return Part(path=asset.path, position=position)


def _rank(asset: Asset, need: Bands) -> tuple[int, bool, bool]:
    """The lower, the likelier it is what was meant."""
    return (1 if asset.dtype is None else 2 * (asset.dtype != need.dtype)), asset.picture, not asset.geotiff


def _listed(asset: Asset) -> tuple[ItemBand, ...]:
    """Of an asset that says nothing, one band."""
    return asset.bands or (ItemBand(name=None, common=None, nm=None),)


def _names(asset: Asset, band: ItemBand) -> set[str]:
    """What a band is called; the asset's key counts where it is the only one."""
    key = asset.key if len(asset.bands) <= 1 else None
    return {name.casefold() for name in (band.name, band.common, key) if name}


def _described(asset: Asset) -> str:
    names = [band.name or band.common or "?" for band in asset.bands]
    return f"{asset.key} ({', '.join(names)})" if names else asset.key
