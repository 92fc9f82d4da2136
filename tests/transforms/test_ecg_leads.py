"""Leads: the geometry of the heart's vector, and gains."""

import numpy as np
import pytest
from scipy import stats

from src.config.data import STANDARD_LEADS
from src.config.ecg_transforms import ChannelResizeConfig, InvertConfig, VCGConfig
from src.transforms.ecg_leads import (
    DOWER_EX,
    INDEPENDENT,
    INVERSE_DOWER_XE,
    channel_resize,
    invert,
    turn_vcg,
    twelve_of_eight,
)
from src.transforms.rotation import rotations
from tests.transforms.batches import random_batch, streams_of

LEAD = {name: number for number, name in enumerate(STANDARD_LEADS)}
EIGHT = [LEAD[name] for name in INDEPENDENT]


def turned(ecg_BCT: np.ndarray, leads: tuple[str, ...] = STANDARD_LEADS, **settings) -> np.ndarray:
    got, there_BC = ecg_BCT.copy(), np.ones(ecg_BCT.shape[:2], np.bool_)
    turn_vcg(got, there_BC, leads, VCGConfig(probability=1.0, **settings), streams_of(len(got)))
    return got


def vcg(ecg_BCT: np.ndarray) -> np.ndarray:
    return INVERSE_DOWER_XE @ ecg_BCT[:, EIGHT].astype(np.float64)


def test_the_inverse_is_the_published_one_and_undoes_dowers_matrix() -> None:
    published = [  # Edenbrandt & Pahlm 1988: x, y, z of I, II, V1 to V6
        [0.156, -0.010, -0.172, -0.074, 0.122, 0.231, 0.239, 0.194],
        [-0.227, 0.887, 0.057, -0.019, -0.106, -0.022, 0.041, 0.048],
        [0.022, 0.102, -0.229, -0.310, -0.246, -0.063, 0.055, 0.108],
    ]
    assert np.abs(INVERSE_DOWER_XE - published).max() < 0.0005 + 1e-9
    np.testing.assert_allclose(INVERSE_DOWER_XE @ DOWER_EX, np.eye(3), atol=1e-12)


def test_turning_keeps_the_length_of_the_vector_and_the_angle_between_two() -> None:
    before = random_batch(50, 40)
    after = turned(before, scale=(1.0, 1.0))
    old, new = vcg(before), vcg(after)
    np.testing.assert_allclose(np.linalg.norm(new, axis=1), np.linalg.norm(old, axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new.transpose(0, 2, 1) @ new, old.transpose(0, 2, 1) @ old, atol=1e-5)
    assert (np.abs(new - old).max((1, 2)) > 1e-3).all()


def test_scaling_stretches_each_axis_within_its_range() -> None:
    before = random_batch(400, 10)
    ratio_BX = (vcg(turned(before, angle=0.0, scale=(0.5, 2.0))) / vcg(before)).mean(axis=2)
    assert stats.kstest(ratio_BX.reshape(-1), stats.uniform(0.5, 1.5).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(ratio_BX.T)[~np.eye(3, dtype=bool)]).max() < 0.2


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotations_are_about_their_axis_and_right_handed(axis: int) -> None:
    angles_HX = np.zeros((3, 3))
    angles_HX[:, axis] = np.deg2rad([10, -45, 90])
    for turn, angle in zip(rotations(angles_HX), angles_HX[:, axis], strict=True):
        np.testing.assert_allclose(turn @ np.eye(3)[axis], np.eye(3)[axis], atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1.0) and np.trace(turn) == pytest.approx(1 + 2 * np.cos(angle))
        one, other = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
        np.testing.assert_allclose(turn @ one, np.cos(angle) * one + np.sin(angle) * other, atol=1e-12)


def test_angles_reach_what_is_set_and_no_further() -> None:
    before = np.tile(DOWER_EX[:, 0], (500, 1))  # a heart that points along x
    ecg_BCT = (before @ twelve_of_eight(STANDARD_LEADS).T)[:, :, None].astype(np.float32)
    for angle in (0.0, 10.0, 45.0):
        cosine_B = vcg(turned(ecg_BCT, angle=angle, scale=(1.0, 1.0)))[:, 0, 0]
        furthest = np.cos(np.deg2rad(angle)) ** 2  # turned about y and about z, each by the largest angle
        assert cosine_B.min() >= furthest - 1e-6
        assert cosine_B.min() <= furthest + 0.12 * (1 - furthest) + 1e-6


def test_limb_leads_keep_einthovens_and_goldbergers_laws() -> None:
    ecg = turned(random_batch(20, 30))
    one, two, three, right, left, foot = (ecg[:, LEAD[name]] for name in ("I", "II", "III", "aVR", "aVL", "aVF"))
    np.testing.assert_allclose(one + three, two, atol=1e-6)
    np.testing.assert_allclose(right + left + foot, 0.0, atol=1e-6)
    np.testing.assert_allclose(right, -(one + two) / 2, atol=1e-6)
    np.testing.assert_allclose(left, (one - three) / 2, atol=1e-6)
    np.testing.assert_allclose(foot, (two + three) / 2, atol=1e-6)


def test_an_ecg_that_is_a_vector_comes_back_unturned() -> None:
    vector_BXT = np.random.default_rng(0).normal(0.0, 0.5, (4, 3, 50))
    ecg_BCT = (twelve_of_eight(STANDARD_LEADS) @ DOWER_EX @ vector_BXT).astype(np.float32)
    np.testing.assert_allclose(turned(ecg_BCT, angle=0.0, scale=(1.0, 1.0)), ecg_BCT, atol=1e-6)


def test_the_order_of_leads_makes_no_difference() -> None:
    ecg_BCT, order = random_batch(5, 20), np.random.default_rng(0).permutation(12)
    shuffled = turned(ecg_BCT[:, order], tuple(STANDARD_LEADS[number] for number in order))
    np.testing.assert_allclose(shuffled, turned(ecg_BCT)[:, order], atol=1e-6)


def test_without_one_of_the_eight_a_sample_stays_as_it_is() -> None:
    before = random_batch(12, 20)
    got, there_BC = before.copy(), ~np.eye(12, dtype=bool)
    turn_vcg(got, there_BC, STANDARD_LEADS, VCGConfig(probability=1.0), streams_of(12))
    same_B = (got == before).all((1, 2))
    assert [STANDARD_LEADS[row] for row in np.flatnonzero(same_B)] == list(INDEPENDENT)


def test_gains_are_log_uniform_in_their_range_and_a_lead_has_one() -> None:
    ecg_BCT = np.ones((400, 12, 5), np.float32)
    channel_resize(ecg_BCT, ChannelResizeConfig(probability=1.0), streams_of(400))
    assert (ecg_BCT == ecg_BCT[:, :, :1]).all()
    gain = ecg_BCT[:, :, 0].astype(np.float64)
    assert 0.33 - 1e-6 <= gain.min() < 0.34 and 2.95 < gain.max() <= 3.0 + 1e-6
    share = (np.log(gain) - np.log(0.33)) / (np.log(3.0) - np.log(0.33))
    assert stats.kstest(share.reshape(-1), stats.uniform(0, 1).cdf).pvalue > 1e-3


def test_inverting_twice_is_what_it_was() -> None:
    before = random_batch(3, 20)
    got = before.copy()
    invert(got, InvertConfig(probability=1.0), streams_of(3))
    np.testing.assert_array_equal(got, -before)
    invert(got, InvertConfig(probability=1.0), streams_of(3))
    np.testing.assert_array_equal(got, before)
