"""The official StyleGAN2 networks by name: NVIDIA's URLs, and the SHA-256 if known.

NVIDIA publishes no digests. The two digests listed here are those that public programs check for
the same URL. For all other networks the digest of the first download is stored.
"""

import pathlib
from collections.abc import Mapping

from tools.convert_weights.download import KnownFile, cache_folder, fetch_known

_SITE = "https://nvlabs-fi-cdn.nvidia.com"
_CATALOGUE = "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan2/versions/1/files"
# By the names that --resume of train.py in stylegan2-ada-pytorch takes.
_SOURCE_NETS = {
    "ffhq256": "ffhq-res256-mirror-paper256-noaug",
    "ffhq512": "ffhq-res512-mirror-stylegan2-noaug",
    "ffhq1024": "ffhq-res1024-mirror-stylegan2-noaug",
    "celebahq256": "celebahq-res256-mirror-paper256-kimg100000-ada-target0.5",
    "lsundog256": "lsundog-res256-paper256-kimg100000-noaug",
}

_SHA256 = {
    "ada-ffhq": "a205a346e86a9ddaae702e118097d014b7b8bd719491396a162cca438f2f524c",
    "ada-cifar10": "f8952c74e23da2186d147ad871c48780bd59500ee37c301201081ee8e0cb32f1",
}


def _files() -> dict[str, KnownFile]:
    """Returns the table; names begin with the data set, or with `ada-`.

    The program of StyleGAN3 lists the networks whose name has a size like 256x256.
    """
    paths = {
        f"{data}-config-f": f"stylegan2/networks/stylegan2-{data}-config-f.pkl"
        for data in ("ffhq", "car", "horse", "church", "cat")  # 1024, 512, 256, 256, 256 px
    }
    for data in ("ffhq", "car"):
        paths[f"{data}-config-e"] = f"stylegan2/networks/stylegan2-{data}-config-e.pkl"
        for g in ("orig", "resnet", "skip"):
            for d in ("orig", "resnet", "skip"):
                name = f"{data}-config-e-G{g}-D{d}"
                paths[name] = f"stylegan2/networks/table2/stylegan2-{name}.pkl"
    for name in ("ffhq", "metfaces", "afhqcat", "afhqdog", "afhqwild", "brecahad", "cifar10"):
        paths[f"ada-{name}"] = f"stylegan2-ada-pytorch/pretrained/{name}.pkl"
    folder = "stylegan2-ada-pytorch/pretrained/transfer-learning-source-nets"
    for name, file in _SOURCE_NETS.items():
        paths[f"ada-{name}"] = f"{folder}/{file}.pkl"
    urls = {name: f"{_SITE}/{path}" for name, path in paths.items()}
    for side, datasets in {
        1024: ("ffhq", "ffhqu", "metfaces", "metfacesu"),
        512: ("ffhq", "afhqv2", "afhqcat", "afhqdog", "afhqwild", "brecahad"),
        256: ("ffhq", "ffhqu", "celebahq", "lsundog"),
        32: ("cifar10",),
    }.items():
        for data in datasets:
            name = f"{data}-{side}x{side}"
            urls[name] = f"{_CATALOGUE}/stylegan2-{name}.pkl"
    return {name: KnownFile(_SHA256.get(name, ""), url=url) for name, url in urls.items()}


KNOWN_NETWORKS: Mapping[str, KnownFile] = _files()


def fetch_network(name: str) -> pathlib.Path:
    """Returns the path of a network in the cache; downloads the network if it is not there.

    Raises: as `download.fetch_known`.
    """
    known = KNOWN_NETWORKS[name]
    return fetch_known(known, cache_folder() / "stylegan2" / f"{name}.pkl")
