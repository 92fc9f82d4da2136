"""From parameters to twelve leads: a rotating cardiac dipole, its projection on the electrodes, and what disturbs it.

The dipole's coordinates are sums of Gaussian kernels in the cardiac phase (McSharry, Clifford, Tarassenko & Smith 2003,
IEEE TBME 50:289; three coordinates: Sameni, Clifford, Jutten & Shamsollahi 2007, EURASIP JASP 43407; abnormal beats as
other kernels: Clifford, Nemati & Sameni 2010, Physiol Meas 31:595). McSharry's equation dz/dt = -sum a_i omega dtheta_i
exp(-dtheta_i^2 / 2 b_i^2) - (z - z0) is linear in z; without the weak relaxation its solution along the limit cycle is
the sum of the kernels itself, which is what is evaluated here. Centres and widths are written in seconds from the R
peak, theta RR / 2 pi, and unlike the authors' ecgsyn, whose widths in seconds all go with the square root of RR, those
of P and QRS are the same at any rate (the PR interval is up to 6 % shorter above 70 beats a minute); ST and T go with
the square root of RR, as Bazett has it. The dipole is in Frank's axes: x left, y feet, z back.
"""

# N records, B beats, W waves, D = 3 axes, E electrodes, C leads, T samples, S samples around a beat, F frequencies

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.config.data import STANDARD_LEADS
from src.simulation.findings import Flags, Floats, Numbers, Records

WAVES = ("P", "Q", "R", "S", "late", "ST1", "ST2", "T1", "T2")
"""`late` are forces after the main QRS, ST two halves of a plateau, T a slow rise and a steeper fall."""
P, Q, R, S, LATE, ST1, ST2, T1, T2 = range(len(WAVES))
QRS = slice(Q, LATE + 1)
CENTRES_W = np.array([-0.155, -0.028, 0.0, 0.030, 0.062, 0.115, 0.170, 0.265, 0.305])
"""Seconds from the R peak at 60 beats a minute."""
WIDTHS_W = np.array([0.021, 0.009, 0.0125, 0.0115, 0.017, 0.034, 0.038, 0.055, 0.036])
"""Standard deviations in seconds."""
SIZES_WD = np.array(
    [
        [0.07, 0.10, -0.02],
        [-0.11, -0.05, -0.14],
        [0.92, 0.75, 0.22],
        [-0.15, -0.15, 0.52],
        [0.0, 0.0, 0.0],
        [0.005, 0.005, -0.01],
        [0.01, 0.01, -0.02],
        [0.15, 0.11, -0.10],
        [0.12, 0.09, -0.06],
    ]
)
"""Peaks in mV."""
EFFECTS_WD = {
    "RBBB": {LATE: (-0.75, 0.0, -0.65), T1: (0.06, 0.0, 0.10), T2: (0.05, 0.0, 0.08)},
    "LBBB": {
        Q: (0.12, 0.06, 0.14),
        LATE: (0.75, 0.10, 0.70),
        ST1: (-0.06, 0.0, -0.09),
        ST2: (-0.08, -0.01, -0.12),
        T1: (-0.36, -0.16, -0.16),
        T2: (-0.30, -0.13, -0.14),
    },
    "LVH": {
        R: (0.35, -0.15, 0.45),
        ST2: (-0.06, 0.0, 0.0),
        T1: (-0.17, -0.04, 0.03),
        T2: (-0.14, -0.03, 0.03),
    },
    "STEMI_ANT": {ST1: (0.45, -0.1, -0.8), ST2: (0.6, -0.1, -1.1), T1: (0.4, -0.05, -0.6), T2: (0.3, 0.0, -0.4)},
    "STEMI_INF": {ST1: (-0.35, 0.9, 0.1), ST2: (-0.45, 1.2, 0.1), T1: (-0.2, 0.6, 0.0), T2: (-0.15, 0.4, 0.0)},
}
"""What a parameter of 1 adds to the dipole, mV; 1 mV of ST in the two last."""
DOWER_CD = np.array(
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
"""Leads I, II, V1-V6 of Frank's axes (Dower, Machado & Osborne 1980, Clin Cardiol 3:87)."""
LEADS = tuple(STANDARD_LEADS)
ELECTRODES = ("RA", "LA", "LL", "C1", "C2", "C3", "C4", "C5", "C6")
BEFORE, AFTER = 0.45, 0.80
"""Seconds around an R peak in which its beat is drawn."""
FASTEST = 200.0
"""Beats a minute that room is made for."""
MAINS = 50.0


@dataclass(frozen=True)
class Beats:
    """When the beats of N records are and what they are, [N, B]; some lie before or behind the record."""

    times: Floats
    """R peaks, seconds from the record's start."""
    early_atrial: Flags
    ventricular: Flags


def leads_of_electrodes() -> Floats:
    """Einthoven's, Goldberger's and Wilson's leads of the potentials of ELECTRODES, [C, E]."""
    ra, la, ll, *chest = np.eye(len(ELECTRODES))
    wilson = (ra + la + ll) / 3
    limb = [la - ra, ll - ra, ll - la, ra - (la + ll) / 2, la - (ra + ll) / 2, ll - (ra + la) / 2]
    return np.stack([*limb, *(electrode - wilson for electrode in chest)])


def field_of_electrodes() -> Floats:
    """Potentials of ELECTRODES for a dipole of 1 mV, [E, D], such that the leads are Dower's and Wilson's sum is 0."""
    one, two, *chest = DOWER_CD
    return np.stack([-(one + two) / 3, (2 * one - two) / 3, (2 * two - one) / 3, *chest])


def draw_beats(records: Records, seconds: float) -> Beats:
    """R peaks and ectopic beats of records."""
    count = int(np.ceil(seconds * FASTEST / 60)) + 6
    mean_N = 60.0 / records.rate
    intervals_NB = mean_N[:, None] * (1 + records.irregularity[:, None] * _variation(records, mean_N, count))
    intervals_NB = np.maximum(intervals_NB, 0.6 * mean_N[:, None])
    start_N = -mean_N * (1 + records.of_record.uniform("start", 1)[:, 0])
    planned_NB = start_N[:, None] + np.cumsum(intervals_NB, axis=1)
    ventricular, atrial = (_ectopic(records, name, planned_NB, seconds) for name in ("PVC", "PAC"))
    atrial &= ~(ventricular | _shifted(ventricular, 1) | _shifted(ventricular, -1))
    intervals_NB = _premature(records, intervals_NB, atrial, ventricular)
    return Beats(start_N[:, None] + np.cumsum(intervals_NB, axis=1), atrial, ventricular)


def _variation(records: Records, mean_N: Floats, count: int) -> Floats:
    """RR about its mean in standard deviations, [N, B]: McSharry's two bands in sinus rhythm, independent in AF.

    The bands are Gaussians at 0.1 Hz (Mayer waves) and at the respiratory rate near 0.25 Hz with half of the power in
    the first (LF/HF 0.5), as a sum of cosines with random phases.
    """
    grid_F = np.linspace(-2.0, 2.0, 5)
    weight_F = np.exp(-0.5 * grid_F**2)
    bands_N2F = np.stack([np.full(len(records), 0.1), respiration(records)], axis=1)[..., None] + 0.01 * grid_F
    size_2F = np.sqrt(2 * np.outer([1 / 3, 2 / 3], weight_F / weight_F.sum()))
    phase_N2F = 2 * np.pi * records.of_record.uniform("RR phases", 2, len(grid_F))
    times_NB = mean_N[:, None] * np.arange(count)
    angle_NB2F = 2 * np.pi * times_NB[:, :, None, None] * bands_N2F[:, None] + phase_N2F[:, None]
    sinus_NB = (size_2F * np.cos(angle_NB2F)).sum(axis=(2, 3))
    return np.where(records.has("AF")[:, None], records.of_record.normal("RR in AF", count), sinus_NB)


def respiration(records: Records) -> Floats:
    """Breaths a second, [N]."""
    return 0.25 + 0.06 * (2 * records.of_record.uniform("respiration", 1)[:, 0] - 1)


def _ectopic(records: Records, name: str, planned_NB: Floats, seconds: float) -> Flags:
    """Which beats are ectopic, the number of records.beats at most: the first anywhere, the others in even steps."""
    within = (planned_NB > 1.2) & (planned_NB < seconds - 1.2)
    first = within.argmax(axis=1)
    room = np.maximum(within.sum(axis=1), 1)
    chosen = first + np.floor(records.of_record.uniform(f"first {name}", 1)[:, 0] * room).astype(np.int64)
    step = 2 + records.of_record.integers(f"step of {name}", 3, 1)[:, 0]
    turns, rest = np.divmod(np.arange(planned_NB.shape[1]) - chosen[:, None], step[:, None])
    return within & (rest == 0) & (turns >= 0) & (turns < records.beats[name][:, None])


def _shifted(flags_NB: Flags, by: int) -> Flags:
    return np.roll(flags_NB, by, axis=1)


def _premature(records: Records, intervals_NB: Floats, atrial_NB: Flags, ventricular_NB: Flags) -> Floats:
    """Ectopic beats come early; after a ventricular one the pause makes up for it, after an atrial one it does not."""
    early_NB = 0.56 + 0.22 * records.of_record.uniform("coupling", intervals_NB.shape[1])
    short_NB = np.where(atrial_NB | ventricular_NB, early_NB, 1.0) * intervals_NB
    missing_NB = intervals_NB - short_NB
    pause_NB = np.where(ventricular_NB, missing_NB, 0.08 * intervals_NB * atrial_NB)
    return short_NB + _shifted(pause_NB, 1)


def draw_sizes(records: Records) -> tuple[Floats, Floats, Floats]:
    """The waves of the usual beat of records: peaks [N, W, D] in mV, centres and widths [N, W] in seconds."""
    shown, streams = records.shown, records.of_patient
    sizes = SIZES_WD * np.exp(0.25 * streams.normal("wave sizes", len(WAVES), 1))
    lengths_W = np.linalg.norm(SIZES_WD, axis=1)
    sizes += 0.20 * lengths_W[:, None] * streams.normal("wave directions", len(WAVES), 3)
    sizes[:, P] *= records.p_size[:, None]
    sizes[:, [T1, T2]] *= shown["TINV"][:, None, None]
    sizes[:, QRS] *= np.exp(shown["LVH"] - 0.08 * records.female)[:, None, None]
    sizes[:, R] *= (1 - 0.35 * np.clip(shown["LBBB"], 0, 1))[:, None]
    sizes[:, S] *= (1 - 0.5 * np.clip(shown["LBBB"] + shown["RBBB"], 0, 1))[:, None]
    for name, effect in EFFECTS_WD.items():
        for wave, added in effect.items():
            sizes[:, wave] += shown[name][:, None] * np.array(added)
    return sizes, _centres(records), _widths(records)


def _centres(records: Records) -> Floats:
    slow_N = np.clip(records.shown["RBBB"], 0, 1) + np.clip(records.shown["LBBB"], 0, 1)
    stretch_N = np.sqrt(60.0 / records.rate) * np.exp(0.04 * records.of_patient.normal("QT", 1)[:, 0])
    centres = np.tile(CENTRES_W, (len(records), 1))
    centres[:, ST1:] = centres[:, ST1:] * stretch_N[:, None] + 0.025 * slow_N[:, None]
    centres[:, LATE] -= 0.014 * np.clip(records.shown["LBBB"], 0, 1)
    centres[:, P] = -(records.shown["AVB1"] / 1000) * (1 - 0.001 * np.clip(records.rate - 70, 0, 60))
    return centres


def _widths(records: Records) -> Floats:
    widths = WIDTHS_W * np.exp(0.10 * records.of_patient.normal("widths", len(WAVES)))
    widths[:, ST1:] *= np.sqrt(60.0 / records.rate)[:, None]
    widths[:, R] *= 1 + 0.8 * np.clip(records.shown["LBBB"], -0.4, 1.5)
    widths[:, LATE] *= 1 + 0.35 * np.clip(records.shown["LBBB"], 0, 1.5)
    return widths


def _atrial_sizes(records: Records, sizes_NWD: Floats) -> Floats:
    """A premature atrial beat: another P, the usual QRS."""
    sizes = sizes_NWD.copy()
    sizes[:, P] = 0.5 * sizes_NWD[:, P] + 0.09 * records.of_patient.normal("P of PAC", 3)
    return sizes


def _ventricular_sizes(records: Records) -> Floats:
    """A ventricular beat: no P, one broad QRS from left to right or from right to left, a T against it."""
    left_N = np.where(records.of_patient.uniform("side of PVC", 1)[:, 0] < 0.6, 1.0, -1.0)
    axis = np.stack([0.9 * left_N, np.full(len(records), 0.5), 0.7 * left_N], axis=1)
    axis = axis + 0.35 * records.of_patient.normal("axis of PVC", 3)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    size = 1.6 * np.exp(0.3 * records.of_patient.normal("size of PVC", 1))
    sizes = np.zeros((len(records), len(WAVES), 3))
    for wave, share in {R: 1.0, LATE: 0.6, ST1: -0.12, ST2: -0.2, T1: -0.4, T2: -0.3}.items():
        sizes[:, wave] = share * size * axis
    return sizes


def render(records: Records, sampling_rate: float, seconds: float) -> Floats:
    """ECGs [N, C, T] in mV, leads as in STANDARD_LEADS, with noise, and mean 0 as an AC-coupled recorder has it."""
    clean_NET = potentials(records, draw_beats(records, seconds), sampling_rate, seconds)
    measured_NET = clean_NET + disturbances(records, sampling_rate, clean_NET.shape[-1])
    return leads_of_electrodes() @ (measured_NET - measured_NET.mean(axis=-1, keepdims=True))


def potentials(records: Records, beats: Beats, sampling_rate: float, seconds: float) -> Floats:
    """What the heart makes of the electrodes, [N, E, T] in mV."""
    length = round(seconds * sampling_rate)
    dipole_NDT = _dipole(records, beats, sampling_rate, length)
    dipole_NDT += _fibrillation(records, np.arange(length) / sampling_rate)
    breath_NT = _breath(records, np.arange(length) / sampling_rate)
    gain_N = np.exp(0.22 * records.of_patient.normal("gain", 1) + 0.12 * records.of_record.normal("gain", 1))[:, 0]
    dipole_NDT *= (gain_N[:, None] * (1 + 0.05 * breath_NT))[:, None]
    return _field(records) @ _rotation(records) @ dipole_NDT


def _dipole(records: Records, beats: Beats, sampling_rate: float, length: int) -> Floats:
    """The sum of all beats' kernels, [N, D, T] in mV; one loop over the place in the row of beats."""
    sizes, centres, widths = draw_sizes(records)
    early, broad = _atrial_sizes(records, sizes), _ventricular_sizes(records)
    offsets_S = np.arange(-int(BEFORE * sampling_rate), int(AFTER * sampling_rate))
    padded_NTD = np.zeros((len(records), length + 2 * len(offsets_S), 3))
    for times_N, atrial_N, ventricular_N in zip(beats.times.T, beats.early_atrial.T, beats.ventricular.T, strict=True):
        rows = np.flatnonzero((times_N > -AFTER) & (times_N < length / sampling_rate + BEFORE))
        if not len(rows):
            continue
        ectopic = ventricular_N[rows, None]
        own_WD = np.where(
            ectopic[..., None], broad[rows], np.where(atrial_N[rows, None, None], early[rows], sizes[rows])
        )
        nearest = np.rint(times_N[rows] * sampling_rate).astype(np.int64)
        since_S = (nearest[:, None] + offsets_S) / sampling_rate - times_N[rows, None]
        centre = centres[rows] + ectopic * (np.arange(len(WAVES)) >= LATE) * 0.035
        width = widths[rows] * np.where(ectopic, _BROAD_W, 1.0)
        kernel_SW = np.exp(-0.5 * ((since_S[:, :, None] - centre[:, None]) / width[:, None]) ** 2)
        padded_NTD[rows[:, None], nearest[:, None] + offsets_S + len(offsets_S)] += kernel_SW @ own_WD
    return padded_NTD[:, len(offsets_S) : len(offsets_S) + length].transpose(0, 2, 1).copy()


_BROAD_W = np.array([1.0, 1.0, 2.6, 1.0, 2.0, 1.2, 1.2, 1.2, 1.2])


def _fibrillation(records: Records, times_T: Floats) -> Floats:
    """f-waves, or tremor that looks like them, [N, D, T] in mV: a sawtooth of 4 to 9 Hz whose rate and size wander.

    As Stridh & Sörnmo 2001 (IEEE TBME 48:105) have it: a fundamental with harmonics, modulated slowly.
    """
    streams = records.of_record
    rate_N1 = 6.2 + 0.9 * records.of_patient.normal("f-wave rate", 1) + 0.3 * streams.normal("f-wave rate", 1)
    phases_N6 = 2 * np.pi * streams.uniform("f-wave phases", 6)
    wander_NT = 1.2 * np.sin(2 * np.pi * 0.35 * times_T + phases_N6[:, :1])
    swell_NT = 1 + 0.35 * np.sin(2 * np.pi * 0.4 * times_T + phases_N6[:, 1:2])
    angle_NT = 2 * np.pi * np.clip(rate_N1, 4.0, 9.0) * times_T + wander_NT
    found_NDT = np.zeros((len(records), 3, len(times_T)))
    for axis, weight in enumerate((0.35, 0.8, -0.7)):
        turn_NT = angle_NT + 0.6 * axis + phases_N6[:, 2 + axis, None] / 6
        wave_NT = sum(np.sin(order * turn_NT) / order for order in (1, 2, 3))
        found_NDT[:, axis] = weight * records.f_size[:, None] * swell_NT * wave_NT
    return found_NDT


def _breath(records: Records, times_T: Floats) -> Floats:
    phase_N1 = 2 * np.pi * records.of_record.uniform("breath", 1)
    return np.sin(2 * np.pi * respiration(records)[:, None] * times_T + phase_N1)


def _rotation(records: Records) -> Floats:
    """How the heart lies, [N, D, D]: the patient's position and posture, by Euler angles."""
    angles = np.radians([14.0, 14.0, 20.0]) * records.of_patient.normal("position", 3)
    angles += np.radians([5.0, 5.0, 5.0]) * records.of_record.normal("posture", 3)
    turned = np.broadcast_to(np.eye(3), (len(records), 3, 3))
    for axis in range(3):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        turn = np.broadcast_to(np.eye(3), (len(records), 3, 3)).copy()
        cosine, sine = np.cos(angles[:, axis]), np.sin(angles[:, axis])
        turn[:, one, one], turn[:, other, other] = cosine, cosine
        turn[:, one, other], turn[:, other, one] = -sine, sine
        turned = turn @ turned
    return turned


def _field(records: Records) -> Floats:
    """Electrodes of N records, [N, E, D]: those of the chest never lie quite where they should."""
    usual = field_of_electrodes()
    shape = (len(ELECTRODES), 3)
    moved = 0.16 * records.of_patient.normal("electrodes", *shape) + 0.08 * records.of_record.normal(
        "electrodes", *shape
    )
    moved[:, :3] = 0
    return usual + moved * np.linalg.norm(usual, axis=1)[:, None]


def disturbances(records: Records, sampling_rate: float, length: int) -> Floats:
    """Noise of the electrodes, [N, E, T] in mV: muscle, wander, motion, and mains where the rate lets it through."""
    times_T = np.arange(length) / sampling_rate
    noise = _muscle(records, sampling_rate, length) + _wander(records, times_T)
    noise += _mains(records, times_T, sampling_rate)
    _add_motion(records, times_T, noise)
    return noise


def _muscle(records: Records, sampling_rate: float, length: int) -> Floats:
    """Noise with a power of 1/f^b above 1 Hz, b from 0.3 to 1.3 by record; standard deviation 0.02 mV at noise 1."""
    white = records.of_record.normal("muscle", len(ELECTRODES), length)
    frequency_F = np.fft.rfftfreq(length, 1 / sampling_rate)
    slope_N = 0.3 + records.of_record.uniform("colour", 1)[:, 0]
    colour_NF = np.maximum(frequency_F, 1.0) ** (-0.5 * slope_N[:, None]) * (frequency_F >= 0.5)
    colour_NF /= np.sqrt((colour_NF**2).mean(axis=1, keepdims=True))
    coloured = np.fft.irfft(np.fft.rfft(white) * colour_NF[:, None], length)
    contact = np.exp(0.4 * records.of_record.normal("contact", len(ELECTRODES)))
    return 0.02 * (records.noise[:, None] * contact)[:, :, None] * coloured


def _wander(records: Records, times_T: Floats) -> Floats:
    """Breathing and slow drift."""
    streams, electrodes = records.of_record, len(ELECTRODES)
    rates = np.concatenate([respiration(records)[:, None], 0.05 + 0.35 * streams.uniform("drift rates", 2)], axis=1)
    sizes = 0.035 * np.sqrt(records.noise)[:, None, None] * streams.normal("drift sizes", electrodes, 3)
    phases = 2 * np.pi * streams.uniform("drift phases", 3)
    waves_N3T = np.sin(2 * np.pi * rates[:, :, None] * times_T + phases[:, :, None])
    return sizes @ waves_N3T


def _mains(records: Records, times_T: Floats, sampling_rate: float) -> Floats:
    """Mains hum; at 100 Hz a recorder's anti-alias filter has taken it out."""
    if sampling_rate <= 2.2 * MAINS:
        return np.zeros((len(records), len(ELECTRODES), 1))
    sizes = 0.006 * records.noise[:, None] * np.abs(records.of_record.normal("mains", len(ELECTRODES)))
    phase_N1 = 2 * np.pi * records.of_record.uniform("mains phase", 1)
    return sizes[:, :, None] * np.sin(2 * np.pi * MAINS * times_T + phase_N1)[:, None]


def _add_motion(records: Records, times_T: Floats, noise_NET: Floats) -> None:
    """Up to two steps of one electrode that fade within a second."""
    streams = records.of_record
    happens = streams.uniform("motion", 2) < 0.18 * np.sqrt(records.noise)[:, None]
    when = times_T[-1] * streams.uniform("motion time", 2)
    size = 0.3 * streams.normal("motion size", 2)
    electrode: Numbers = streams.integers("motion electrode", len(ELECTRODES), 2)
    fades = 0.2 + 0.6 * streams.uniform("motion fades", 2)
    for row, turn in np.argwhere(happens):
        since_T = times_T - when[row, turn]
        step_T = np.where(since_T >= 0, np.exp(-np.maximum(since_T, 0) / fades[row, turn]), 0.0)
        noise_NET[row, electrode[row, turn]] += size[row, turn] * step_T


def quantised(signal_NCT: Floats) -> NDArray[np.int16]:
    """Microvolts in int16, clipped to +-32 mV."""
    return np.clip(np.rint(1000 * signal_NCT), -32767, 32767).astype(np.int16)
