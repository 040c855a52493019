"""StyleGAN2 generators."""
from typing import Any, Mapping
import re
import numpy as np
from navigan_jax import params as params_lib

def from_rosinality(state: Mapping[str, Any], latent_avg):
    n = sum(k.startswith("to_rgbs.") and k.endswith(".bias") and "modulation" not in k for k in state)
    flat = {}
    def hwio(a): return a[0].transpose(2,3,1,0)
    i = 1
    widths=[]
    while f"style.{i}.weight" in state:
        flat[f"mapping/fc{i-1}/kernel"] = state[f"style.{i}.weight"].T
        flat[f"mapping/fc{i-1}/bias"] = state[f"style.{i}.bias"]
        widths.append(state[f"style.{i}.weight"].shape[0])
        i += 1
    flat["mapping/w_avg"] = latent_avg.reshape(-1)
    flat["synthesis/b4/const"] = state["input.input"][0].transpose(1,2,0)
    names = {"conv1": ("b4/conv1", 0), "to_rgb1": ("b4/torgb", None)}
    for b in range(1, n+1):
        names[f"convs.{2*b-2}"] = (f"b{4<<b}/conv0", 2*b-1)
        names[f"convs.{2*b-1}"] = (f"b{4<<b}/conv1", 2*b)
        names[f"to_rgbs.{b-1}"] = (f"b{4<<b}/torgb", None)
    channels=[]
    for old,(new,noise) in names.items():
        p=f"synthesis/{new}"
        flat[f"{p}/kernel"] = hwio(state[f"{old}.conv.weight"])
        flat[f"{p}/affine/kernel"] = state[f"{old}.conv.modulation.weight"].T
        flat[f"{p}/affine/bias"] = state[f"{old}.conv.modulation.bias"]
        if noise is None:
            flat[f"{p}/bias"] = state[f"{old}.bias"].reshape(-1)
        else:
            flat[f"{p}/bias"] = state[f"{old}.activate.bias"]
            flat[f"{p}/noise_strength"] = state[f"{old}.noise.weight"].reshape(())
            flat[f"{p}/noise"] = state[f"noises.noise_{noise}"][0,0]
            if new.endswith("conv1"): channels.append(flat[f"{p}/bias"].shape[0])
    taps = state["convs.0.conv.blur.kernel"].sum(1)/state["convs.0.conv.blur.kernel"].sum()
    z=state["style.1.weight"].shape[1]
    config=dict(z_dim=z,label_dim=0,label_width=0,labels="embedded",mapping_widths=widths,mapping_rate=0.01,channels=channels,
      image_channels=3,blocks="skip",resample_taps=[float(t) for t in taps],clamp=None)
    return config, params_lib.unflatten({k:np.array(v,np.float32,order="C") for k,v in flat.items()})
