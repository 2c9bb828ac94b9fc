"""What is not a file yet, as bytes: dictionaries, figures and images."""

import io
import json
import re
import time
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from stepstream.errors import ArtifactError, ConfigurationError

YAML: Final = (".yml", ".yaml")
HTML: Final = ".html"
IMAGES_TAG: Final = "mlflow.loggedImages"
"""Says that a run has images by key and step."""
KEY: Final = re.compile(r"[a-zA-Z0-9_\-./ ]+")
"""Of images that are logged by step."""
SMALL_PIXELS: Final = 256
"""Each side of an image that is only looked at, at most."""
PLAIN_MODES: Final = ("L", "RGB", "RGBA")


def of_dict(dictionary: Any, path: str) -> bytes:
    """JSON, or YAML where the path says so: of a mapping, a list, whatever has such a form.

    In either, NumPy's values are as Python's, and what has no form of its own is text. Raises ArtifactError for what
    has none at all.
    """
    form, write = ("YAML", _yaml) if path.endswith(YAML) else ("JSON", _json)
    try:
        return write(dictionary).encode()
    except ConfigurationError:
        raise
    except Exception as error:  # whatever a foreign type raises while it is read
        raise ArtifactError(f"{path}: this has no {form} form: {error or type(error).__name__}") from error


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=_plain, ensure_ascii=False)


def _yaml(value: Any) -> str:
    yaml = _needed("yaml", "pyyaml")
    # Not by way of JSON, which would make a text of a number that is a key, or of a date.
    dumper: Any = type("Dumper", (yaml.SafeDumper,), {})
    # Subclasses of these are written as these, as JSON does; the safe dumper refuses them.
    for kind, write in (
        (dict, dumper.represent_dict),
        (list, dumper.represent_list),
        (tuple, dumper.represent_list),
        (str, lambda writing, one: writing.represent_str(str.__str__(one))),
        (int, lambda writing, one: writing.represent_int(int(one))),
        (float, lambda writing, one: writing.represent_float(float(one))),
        (object, lambda writing, one: writing.represent_data(_plain(one))),
    ):
        dumper.add_multi_representer(kind, write)
    return str(yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True))


def of_figure(figure: Any, path: str, options: Mapping[str, Any] | None = None) -> bytes:
    """A figure of matplotlib, in the format of the path's suffix, or plotly (HTML too). Raises ArtifactError."""
    out = io.BytesIO()
    suffix = path.rpartition(".")[2].lower()
    if hasattr(figure, "savefig"):
        figure.savefig(out, **{"format": suffix, **(options or {})})
        return out.getvalue()
    if hasattr(figure, "to_html"):
        if path.endswith(HTML):
            return str(figure.to_html(include_plotlyjs="cdn", **(options or {}))).encode()
        return bytes(figure.to_image(format=suffix, **(options or {})))
    raise ArtifactError(f"{path}: a {type(figure).__name__} is no figure of matplotlib or plotly")


def of_image(image: Any, path: str) -> bytes:
    """An image of PIL, or an array of it: integers 0 to 255, or floats 0 to 1. Raises ArtifactError."""
    module = _needed("PIL.Image", "pillow")
    picture = image if hasattr(image, "save") else module.fromarray(_pixels(image, path))
    out = io.BytesIO()
    suffix = path.rpartition(".")[2].lower()
    picture.save(out, format={"jpg": "jpeg"}.get(suffix, suffix))
    return out.getvalue()


def of_images(image: Any, path: str | None, key: str | None, step: int | None, time_ms: int | None) -> dict[str, bytes]:
    """The files of one image, the first itself: under a path, or by a key at a step, which is 0, and a time, now.

    Raises TypeError for both or neither, as MLflow does, and ArtifactError.
    """
    if path is not None:
        if (key, step, time_ms) != (None, None, None):
            raise TypeError("key, step and timestamp are of images by step: leave the artifact file out")
        return {path: of_image(image, path)}
    if key is None:
        raise TypeError("say where the image goes: an artifact file, or a key (and a step)")
    return _of_keyed_image(image, key, step or 0, time.time_ns() // 1_000_000 if time_ms is None else time_ms)


def _of_keyed_image(image: Any, key: str, step: int, time_ms: int) -> dict[str, bytes]:
    """One of the images of a key: itself and a small one to look at, each under the path that MLflow's page knows.

    Raises ArtifactError for a key with other characters than letters, digits, spaces and _-./
    """
    if not KEY.fullmatch(key):
        raise ArtifactError(f"the key of an image holds letters, digits, spaces and _-./ and not {key[:60]!r}")
    module = _needed("PIL.Image", "pillow")
    picture = image if hasattr(image, "save") else module.fromarray(_pixels(image, key))
    small = picture.copy() if picture.mode in PLAIN_MODES else picture.convert("RGB")
    small.thumbnail((SMALL_PIXELS, SMALL_PIXELS))
    name = f"images/{key.replace('/', '~')}+step+{step}+timestamp+{time_ms}+{uuid4()}"
    return {f"{name}.png": of_image(picture, ".png"), f"{name}+compressed.webp": of_image(small, ".webp")}


def _pixels(image: Any, path: str) -> Any:
    import numpy as np

    array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ArtifactError(f"{path}: an image has the shape (height, width) or (height, width, 1, 3 or 4)")
    if array.dtype.kind == "f":
        array = np.clip(array, 0, 1) * 255
    return np.clip(array, 0, 255).astype(np.uint8)


def _plain(value: Any) -> Any:
    """NumPy's scalars and arrays as Python's, any mapping as a dict; whatever else has no form of its own, as text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return dict(value) if isinstance(value, Mapping) else str(value)


def _needed(module: str, package: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"this needs the package {package}: pip install {package}") from error
