"""What happens across the leads of an ECG: the heart's vector, gains, sign, leads that drop out.

Legend: B batch, H samples of the batch that a transform hits, C leads, T samples of a lead, E the eight independent
leads, X the axes of the vectorcardiogram (left, down, back).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from src.config.data import STANDARD_LEADS
from src.config.ecg_transforms import ChannelResizeConfig, InvertConfig, LeadMaskConfig, VCGConfig
from src.randomness import Streams
from src.transforms.draws import between, hit, signed
from src.transforms.rotation import rotations

INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
DOWER_EX = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
"""The eight leads of a vector (Dower et al. 1980)."""
INVERSE_DOWER_XE = np.linalg.pinv(DOWER_EX)
"""The vector of the eight leads: the published inverse (Edenbrandt & Pahlm 1988) before it was rounded."""
LIMBS = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}
"""The other limb leads: factors of I and II (Einthoven, Goldberger)."""


def turn_vcg(
    ecg_BCT: NDArray[np.float32],
    there_BC: NDArray[np.bool_],
    leads: Sequence[str],
    config: VCGConfig,
    streams: Streams,
) -> None:
    """Eight leads to the vectorcardiogram, which is turned and scaled, and back to all twelve (3KG, Gopal et al. 2021).

    What a vector can't tell of the eight leads is lost, as in 3KG, at an angle of 0 too. A sample in which one of the
    eight is not there stays as it is.
    """
    hit_H = hit(streams, "vcg", config.probability)
    if not len(hit_H):
        return
    eight_E = np.array([leads.index(lead) for lead in INDEPENDENT])
    hit_H = hit_H[there_BC[np.ix_(hit_H, eight_E)].all(axis=1)]
    scale_HX = between(streams[hit_H], "vcg.scale", config.scale, 3)
    turn_HXX = rotations(np.deg2rad(config.angle) * signed(streams[hit_H], "vcg.angle", 3))
    all_CE = twelve_of_eight(leads)
    for row, scale_X, turn_XX in zip(hit_H, scale_HX, turn_HXX, strict=True):
        mixed_CE = all_CE @ DOWER_EX @ (scale_X[:, None] * turn_XX) @ INVERSE_DOWER_XE
        # not @: what BLAS adds up in which order may depend on its threads
        ecg_BCT[row] = np.einsum("ce,et->ct", mixed_CE.astype(np.float32), ecg_BCT[row, eight_E])


def twelve_of_eight(leads: Sequence[str]) -> NDArray[np.float64]:
    """The matrix [C, E] that gives the standard leads, in the order of `leads`, from the eight independent ones."""
    all_CE = np.zeros((len(leads), len(INDEPENDENT)))
    for row_E, lead in zip(all_CE, leads, strict=True):
        if lead in INDEPENDENT:
            row_E[INDEPENDENT.index(lead)] = 1.0
        else:
            row_E[:2] = LIMBS[lead]
    return all_CE


def check_leads(leads: Sequence[str]) -> None:
    """Raises ValueError unless these are the twelve standard leads, in any order."""
    if sorted(leads) != sorted(STANDARD_LEADS):
        raise ValueError(
            f"data.transform.vcg needs the twelve standard leads, but data.leads is [{', '.join(leads)}]:"
            f" set data.transform.vcg.probability to 0, or data.leads to [{', '.join(STANDARD_LEADS)}]"
        )


def channel_resize(ecg_BCT: NDArray[np.float32], config: ChannelResizeConfig, streams: Streams) -> None:
    """A gain for each lead, log-uniform in config.gain (ChannelResize in the code of Mehari & Strodthoff 2022)."""
    hit_H = hit(streams, "channel_resize", config.probability)
    low, high = np.log(config.gain)
    gain_HC = np.exp(between(streams[hit_H], "channel_resize.gain", (low, high), ecg_BCT.shape[1]))
    for row, gain_C in zip(hit_H, gain_HC.astype(np.float32), strict=True):
        ecg_BCT[row] *= gain_C[:, None]


def invert(ecg_BCT: NDArray[np.float32], config: InvertConfig, streams: Streams) -> None:
    """Plus to minus."""
    ecg_BCT[hit(streams, "invert", config.probability)] *= -1.0


def mask_leads(
    ecg_BCT: NDArray[np.float32], there_BC: NDArray[np.bool_], config: LeadMaskConfig, streams: Streams
) -> None:
    """Leads set to zero, each with config.lead_probability; where all of those that are there would go, one stays.

    Which one is drawn uniformly from them.
    """
    hit_H = hit(streams, "leads", config.probability)
    streams, there_HC, leads = streams[hit_H], there_BC[hit_H], ecg_BCT.shape[1]
    keep_HC = streams.uniform("leads.drop", leads) >= config.lead_probability
    stays_H = np.where(there_HC, streams.uniform("leads.stays", leads), -1.0).argmax(axis=1)
    none = ~(keep_HC & there_HC).any(axis=1)
    keep_HC[none, stays_H[none]] = True
    ecg_BCT[hit_H] *= keep_HC[:, :, None]
