"""zarr arrays and groups, format 2 and 3, and the OME metadata in them."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, StorePath

from napari_pixseg.errors import NotAnImage, PixsegError, TooLarge
from napari_pixseg.slices import ChunkIndex
from napari_pixseg.sources.chunk_presence import ZarrCensus, refuse_absence
from napari_pixseg.sources.decoding.bounded_zarr import with_bounded_decoding
from napari_pixseg.sources.file_fingerprint import FileFingerprint
from napari_pixseg.sources.image_choice import Series, StoredImage, refuse_series
from napari_pixseg.sources.location import Identity, Location, locate
from napari_pixseg.sources.metadata_errors import readable_metadata
from napari_pixseg.sources.network_faults import is_passing, is_unconnected
from napari_pixseg.sources.ome_metadata import with_ome_metadata
from napari_pixseg.sources.read_options import DEFAULT_RETRIES
from napari_pixseg.sources.regular_files import RegularFileStore, is_plainly_local
from napari_pixseg.sources.remote_filesystem import limit_attempts, options_for
from napari_pixseg.sources.retrying_store import RetryingStore, with_retries
from napari_pixseg.sources.size_limits import refuse_large_metadata
from napari_pixseg.sources.source import Source, axes_of_names
from napari_pixseg.sources.urls import ARCHIVES
from napari_pixseg.sources.zarr_chunks import ChunkFiles, ZarrArray, with_fast_local_io
from napari_pixseg.sources.zarr_images import ImageGroup, find_image, list_images, multiscales_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_Node: TypeAlias = ZarrArray | zarr.Group


_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


@dataclass(frozen=True)
class ZarrSource(Source):
    """A source whose array is a zarr array, or a wrapper of one."""

    @property
    def decoded_chunks(self) -> tuple[int, ...]:
        """Shape of the chunks; in a sharded array, of those inside the shards."""
        return tuple(int(length) for length in self.array.chunks)

    def refuse_absence(self) -> None:
        """Refuse an array without any chunk."""
        refuse_absence(self.array, self.uri or self.name)

    def chunk_census(self) -> ZarrCensus:
        """Return the counter of existing chunks."""
        return ZarrCensus(self.array, self.uri or self.name)

    def describe_chunk(self, index: ChunkIndex) -> str:
        """Return the key of the file in the store that has a chunk."""
        array = self.array
        if array.shards is not None:
            triples = zip(index, array.chunks, array.shards, strict=True)
            index = tuple(i * chunk // shard for i, chunk, shard in triples)
        key: str = array.metadata.encode_chunk_key(index)
        return f"{array.path}/{key}".lstrip("/")


def is_store(location: Location) -> bool:
    """Whether there is zarr metadata at the location."""
    if not location.is_url:
        paths = [os.path.join(location.address, name) for name in _DOCUMENTS]
        documents = [path for path in paths if os.path.isfile(path)]
        for path in documents:
            refuse_large_metadata(os.path.getsize(path), path)
        return bool(documents)
    if "?" in location.address:
        # The name of a document, appended to such a URL, would become part of its query.
        return False
    try:
        filesystem, path = location.filesystem()
    except Exception as error:  # noqa: BLE001 - every protocol has its own
        raise location.unreachable(error) from None
    paths = [f"{path.rstrip('/')}/{name}" for name in _DOCUMENTS]
    return any(location.ask(partial(_is_document, filesystem, path)) for path in paths)


def open_store(location: Location, series: Series | None = None) -> Source:
    """Open the zarr array or group at a location.

    Parameters
    ----------
    location : Location
        A location for which `is_store` is true.
    series : int or str, optional
        Number, path or name of one of several images; by default the first.

    Returns
    -------
    Source
        Level 0 of a multiscale image, or the only array of another group.
    """
    with readable_metadata(location.shown, location.describe_cause):
        node = _open_node(location)
        opened = source_of_node(node, location.name, series=series)
        if isinstance(node, zarr.Array):
            opened = _with_metadata_of_parent(opened, location)
    levels = partial(coarser_levels, location, opened.series)
    return replace(
        opened,
        uri=location.uri,
        name=location.name,
        open_coarser=levels if opened.kind == "ome-zarr" else None,
    )


def coarser_levels(location: Location, series: Series | None = None) -> list[Source]:
    """Open the levels after level 0 of an OME-Zarr image at a location.

    Returns
    -------
    list of Source
        Fine to coarse, up to the first missing one; empty if there is no pyramid.
    """
    sources: list[Source] = []
    with readable_metadata(location.shown, location.describe_cause):
        node = _open_node(location)
        image = None if isinstance(node, zarr.Array) else find_image(node, series, location.shown)
        if image is None:
            return []
        for level in image.multiscale.get("datasets", [])[1:]:
            try:
                array = image.group[level["path"]]
            except PixsegError:
                raise
            except Exception:  # noqa: BLE001 - what cannot be read is as good as missing
                break
            if not isinstance(array, zarr.Array):
                break
            uri = f"{location.uri}/{array.path}"
            opened = replace(_source_of_array(array, location.name, uri), kind="ome-zarr")
            sources.append(with_ome_metadata(opened, image.multiscale, level))
    return sources


def source_of_node(
    node: _Node,
    name: str | None = None,
    retries: int = DEFAULT_RETRIES,
    series: Series | None = None,
) -> Source:
    """Return the source of an open zarr array or group.

    Parameters
    ----------
    node : zarr.Array or zarr.Group
    name : str, optional
        Name for messages; by default that of the node or its store.
    retries : int
        How often a read that the network spoils is tried again.
    series : int or str, optional
        Which of several images; see :func:`~napari_pixseg.sources.zarr_images.find_image`.
    """
    uri = _uri_of_node(node)
    name = name or node.basename or (locate(uri).name if uri else "array")
    # Errors of a server may contain its URL with secrets.
    describe = str if uri is None or uri.startswith("file:") else _name_type
    with readable_metadata(name, describe):
        if isinstance(node, zarr.Array):
            refuse_series(series, "a zarr array")
            return _source_of_array(with_retries(node, retries), name, uri)
        image = find_image(node, series, name)
        if image is not None:
            return _source_of_level_0(node, image, name, uri, retries)
        array = with_retries(_find_only_array(node, name), retries)
        return replace(_source_of_array(array, name, uri), identity=_hash_metadata(node, array))


def _name_type(error: Exception) -> str:
    return type(error).__name__


def _is_document(filesystem: AbstractFileSystem, path: str) -> bool:
    try:
        # An archive knows the size without decompressing the document, whose few bytes may become
        # many.
        if filesystem.protocol in ARCHIVES:
            refuse_large_metadata(filesystem.info(path)["size"], path)
        return isinstance(json.loads(filesystem.cat_file(path)), dict)
    except TooLarge:
        raise
    except Exception as error:
        # A server that fails says nothing about the document.
        if is_passing(error) and not is_unconnected(error):
            raise
        # The document is missing or forbidden, or the answer is a web page that says so.
        return False


def _open_node(location: Location) -> _Node:
    if location.is_url:
        options = options_for(location.address)
        remote = location.ask(
            lambda: FsspecStore.from_url(location.address, options, read_only=True)
        )
        limit_attempts(remote.fs)
        store: Store = RetryingStore(remote, location.retries)
    else:
        store = RegularFileStore(location.address, read_only=True)
    return zarr.open(store, mode="r")


def _uri_of_node(node: _Node) -> str | None:
    store = node.store_path.store
    path = node.store_path.path
    if isinstance(store, LocalStore):
        return locate(os.path.join(store.root, path)).uri
    if isinstance(store, FsspecStore):
        store = RetryingStore(store, 0)
    return store.uri_of(path) if isinstance(store, RetryingStore) else None


def _hash_metadata(*nodes: _Node) -> Identity:
    """Return the identity of nodes, from their metadata documents; no pixels are read."""
    digest = hashlib.sha256()
    for node in nodes:
        documents = node.metadata.to_buffer_dict(default_buffer_prototype())
        for key, document in sorted(documents.items()):
            digest.update(key.encode() + b"\0" + document.to_bytes() + b"\0")
    return {"metadata_sha256": digest.hexdigest()}


def _source_of_array(array: ZarrArray, name: str, uri: str | None) -> ZarrSource:
    # Format 3 has names of dimensions; xarray writes them as an attribute into format 2.
    names = getattr(array.metadata, "dimension_names", None)
    stored = tuple(array.shards or array.chunks)
    if 0 in (*array.chunks, *stored):
        raise NotAnImage(f"{name} has chunks that hold no pixel; check its metadata.")
    return ZarrSource(
        _with_bounded_reads(array),
        axes=axes_of_names(names or array.attrs.get("_ARRAY_DIMENSIONS"), array.ndim),
        chunks=stored,
        uri=uri,
        identity=_hash_metadata(array),
        kind="zarr",
        name=name,
        fingerprint=_local_fingerprint(array.store_path),
    )


def _with_bounded_reads(array: ZarrArray) -> ZarrArray | ChunkFiles:
    """Return an array with the same content that no chunk can fill the memory with."""
    bounded = with_bounded_decoding(array)
    fast = with_fast_local_io(array)
    return replace(fast, array=bounded) if isinstance(fast, ChunkFiles) else bounded


def _local_fingerprint(place: StorePath) -> FileFingerprint | None:
    # Servers list their files slowly or not at all.
    if not is_plainly_local(place.store):
        return None
    return FileFingerprint(os.path.join(place.store.root, place.path))


def _source_of_level_0(
    root: zarr.Group, image: ImageGroup, name: str, uri: str | None, retries: int
) -> Source:
    try:
        level = image.multiscale["datasets"][0]
        array = image.group[level["path"]]
    except (KeyError, IndexError, TypeError):
        array = None
    if not isinstance(array, zarr.Array):
        raise NotAnImage(f"{name} is an OME-Zarr image whose level 0 is missing.")
    nodes = (root, array) if image.group is root else (root, image.group, array)
    opened = replace(
        _source_of_array(with_retries(array, retries), name, uri),
        identity=_hash_metadata(*nodes),
        kind="ome-zarr",
        series=image.label,
        list_images=partial(_list_store_images, root, uri),
        notes=image.notes,
    )
    return with_ome_metadata(opened, image.multiscale, level)


def _list_store_images(root: zarr.Group, uri: str | None) -> list[StoredImage]:
    images = []
    for image in list_images(root):
        opened = _source_of_level_0(root, image, root.basename, uri, DEFAULT_RETRIES)
        label = image.label if isinstance(image.label, str) else image.multiscale.get("name")
        shape = tuple(opened.array.shape)
        axes = opened.axes or "?" * len(shape)
        images.append(StoredImage(str(label or ""), axes, shape, opened.scale, opened.units))
    return images


def _find_only_array(group: zarr.Group, name: str) -> ZarrArray:
    try:
        with warnings.catch_warnings():
            # Groups may hold other files, such as the manifest and the run record of an export.
            warnings.filterwarnings("ignore", message=".*not recognized as a component of a Zarr")
            members = dict(group.members())
    except Exception:  # noqa: BLE001 - plain http servers cannot list
        raise NotAnImage(
            f"{name} is a zarr group without image metadata whose members cannot be listed: "
            "give the address of one array in it."
        ) from None
    arrays = {key: member for key, member in members.items() if isinstance(member, zarr.Array)}
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    found = f"the arrays {_join_names(arrays)}" if arrays else "no array"
    others = f" (it has the groups {_join_names(members)})" if members and not arrays else ""
    raise NotAnImage(
        f"{name} is a zarr group without image metadata and has {found}{others}: "
        "give the path of one array or image in it."
    )


def _join_names(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:20]) + (", ..." if len(ordered) > 20 else "")


def _with_metadata_of_parent(opened: Source, location: Location) -> Source:
    """Give an array that was opened by its own path the metadata of the image it belongs to."""
    parent = location.parent
    if not is_store(parent):
        return opened
    group = _open_node(parent)
    for multiscale in () if isinstance(group, zarr.Array) else multiscales_of(group):
        for level in multiscale.get("datasets", []):
            if level.get("path") == location.name:
                return with_ome_metadata(opened, multiscale, level)
    return opened
