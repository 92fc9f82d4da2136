"""Simple measurements of an ECG, as a textbook has them; they know nothing of how it was made."""

import numpy as np
from scipy.signal import butter, detrend, find_peaks, sosfiltfilt
from scipy.stats import rankdata

from src.config.data import STANDARD_LEADS

BEFORE, AFTER = 0.36, 0.56
"""Seconds of a beat around its R peak."""


def auroc(has_N, scores_N):
    """Area under the ROC curve by ranks (Mann & Whitney), ties counted half."""
    ranks_N, positive = rankdata(scores_N), int(has_N.sum())
    return (ranks_N[has_N].sum() - positive * (positive + 1) / 2) / (positive * (len(has_N) - positive))


def lead(ecg_CT, *names):
    """The mean of leads."""
    return ecg_CT[[STANDARD_LEADS.index(name) for name in names]].mean(axis=0)


def measure(ecg_CT, rate):
    """What is measured in one record, by name."""
    clean_CT = sosfiltfilt(butter(2, (0.5, 40), "bandpass", fs=rate, output="sos"), ecg_CT)
    peaks = r_peaks(ecg_CT, rate)
    intervals = np.diff(peaks) / rate
    beats_BCS = beats(clean_CT, peaks, rate)
    usual_CS = np.median(beats_BCS, axis=0)
    usual_CS = usual_CS - usual_CS[:, between(-0.06, -0.045, rate)].mean(axis=1, keepdims=True)
    stretch = np.sqrt(np.median(intervals))
    after = between(0.12 * stretch + 0.02, 0.16 * stretch + 0.02, rate)
    wave_t = between(0.22 * stretch, 0.34 * stretch, rate)
    return {
        "rate": 60 / np.median(intervals),
        "irregularity": np.std(intervals) / np.mean(intervals),
        "earliest": -np.min(intervals / np.median(intervals)),
        "oddest": -min(np.corrcoef(beat.ravel(), usual_CS.ravel())[0, 1] for beat in beats_BCS),
        "pr": p_wave(usual_CS, rate)[0],
        "p": p_wave(usual_CS, rate)[1] / np.sqrt(np.mean(usual_CS**2)),
        "qrs": qrs_width(usual_CS, rate),
        "terminal V1": lead(usual_CS, "V1")[between(0.045, 0.085, rate)].mean(),
        "terminal V6": lead(usual_CS, "I", "V5", "V6")[between(0.04, 0.075, rate)].mean(),
        "st anterior": lead(usual_CS, "V2", "V3", "V4")[after].mean(),
        "st inferior": lead(usual_CS, "II", "III", "aVF")[after].mean(),
        "voltage": np.ptp(usual_CS[:, between(-0.05, 0.06, rate)], axis=1).mean(),
        "t": -lead(usual_CS, "I", "II", "V4", "V5", "V6")[wave_t].mean(),
    }


def r_peaks(ecg_CT, rate):
    """Samples of the R peaks: where the leads together are steepest."""
    band_CT = sosfiltfilt(butter(2, (5, 25), "bandpass", fs=rate, output="sos"), ecg_CT)
    power_T = np.sqrt(np.median(np.abs(band_CT), axis=0))
    power_T = np.convolve(power_T, np.hanning(round(0.1 * rate)), "same")
    found, _ = find_peaks(power_T, distance=round(0.3 * rate), height=0.6 * np.quantile(power_T, 0.97))
    return found


def beats(ecg_CT, peaks, rate):
    """The beats that lie whole in the record, [B, C, S]."""
    before, after = round(BEFORE * rate), round(AFTER * rate)
    whole = [peak for peak in peaks if before <= peak < ecg_CT.shape[1] - after]
    return np.stack([ecg_CT[:, peak - before : peak + after] for peak in whole])


def between(start, end, rate):
    """Samples of a beat from `start` to `end` seconds after its R peak."""
    return slice(round((BEFORE + start) * rate), round((BEFORE + end) * rate))


def p_wave(usual_CS, rate):
    """Seconds from the highest point of the P wave, above the line from T to QRS, to the R peak; and its height."""
    window_CS = detrend(usual_CS[:, between(-0.33, -0.08, rate)])
    bump_S = np.convolve(np.linalg.norm(np.maximum(window_CS, 0), axis=0), np.hanning(round(0.08 * rate)), "same")
    inner = bump_S[round(0.03 * rate) : -round(0.03 * rate)]
    return 0.30 - int(inner.argmax()) / rate, inner.max()


def qrs_width(usual_CS, rate):
    """Seconds in which the leads together are steeper than a fifth of their steepest."""
    steep_S = np.linalg.norm(np.gradient(usual_CS, 1 / rate, axis=1), axis=0)[between(-0.10, 0.16, rate)]
    return np.sum(steep_S > 0.2 * steep_S.max()) / rate
