"""From a recorder's channels to the leads of a folder: names, units, gaps, rates and storage, against plain numpy."""

import numpy as np
import pandas as pd
import pytest

from src.data.builders.signals import Channel, Leads, conform, lead_name
from src.data.millivolt import to_millivolt

NAN = float("nan")
RAMP = np.arange(100)


def channel(values=RAMP, name="II", unit="mV", rate=100.0, gain=1.0, missing=()):
    values = np.asarray(values)
    values = values.astype(np.int64 if values.dtype.kind == "i" else np.float64)
    missing_T = np.isin(np.arange(len(values)), missing) if len(missing) else np.zeros(0, np.bool_)
    return Channel(name, unit, rate, values, gain, missing_T)


def leads(*names, rate=100.0, **settings):
    return Leads(names or ("II",), rate, **settings)


def noise(seed, samples=200, low=-400, high=400):
    return np.random.default_rng(seed).integers(low, high, samples)


def sine(hertz, rate, seconds, phase=0.3):
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate + phase)


class TestNames:
    """Which channel is which lead."""

    @pytest.mark.parametrize("name", ["aVR", "AVR", "avr", "Lead aVR", "lead_avr", "ECG_aVR", "ecg avr", "ECGaVR"])
    def test_a_lead_is_known_in_any_case_and_behind_a_prefix(self, name):
        assert conform([channel(name=name)], leads("aVR")).keep == [True]

    @pytest.mark.parametrize("name", ["-aVR", "aVRF", "aV", "R"])
    def test_another_name_is_another_lead(self, name):
        assert lead_name(name) != lead_name("aVR")

    @pytest.mark.parametrize("name", ["Lead", "ECG", "ecg"])
    def test_a_channel_called_no_more_than_its_prefix_keeps_its_name(self, name):
        assert conform([channel(name=name)], leads(name)).keep == [True]

    def test_the_folders_order_counts_and_not_the_channels(self):
        own = {name: noise(seed) for seed, name in enumerate(("V1", "II", "I"))}
        for order in (("V1", "II", "I"), ("I", "V1", "II"), ("II", "I", "V1")):
            signal = conform([channel(own[name], name) for name in order], leads("I", "II", "V1"))
            assert np.array_equal(signal.array_CT, [own["I"], own["II"], own["V1"]])

    def test_channels_that_are_no_lead_are_left_out_whatever_they_hold(self):
        others = [
            channel(np.full(3, np.inf), "ABP", "mmHg", rate=7.0),
            channel(np.zeros(0), "RESP", ""),
            channel([], "RESP", ""),
        ]
        signal = conform([*others, channel(RAMP)], leads())
        assert np.array_equal(signal.array_CT, [RAMP])

    def test_a_renamed_channel_is_the_lead_that_the_map_says(self):
        signal = conform([channel(RAMP, "MLII")], leads("I", "II", renamed={"mlii": "Lead II"}))
        assert signal.keep == [False, True]
        assert np.array_equal(signal.array_CT[1], RAMP)

    def test_two_names_can_be_exchanged(self):
        swapped = leads("I", "II", renamed={"I": "II", "II": "I"})
        signal = conform([channel(RAMP, "I"), channel(-RAMP, "II")], swapped)
        assert np.array_equal(signal.array_CT, [-RAMP, RAMP])

    @pytest.mark.parametrize("second", ["ii", "ECG_II", "MLII"])
    def test_two_channels_of_one_lead_are_refused(self, second):
        with pytest.raises(ValueError, match=f"it has two channels for the lead {second}"):
            conform([channel(name="II"), channel(name=second)], leads(renamed={"MLII": "II"}))

    def test_two_channels_of_a_lead_that_nobody_asked_for_do_no_harm(self):
        signal = conform([channel(name="RESP"), channel(name="RESP"), channel()], leads())
        assert signal.keep == [True]

    def test_a_record_with_none_of_the_leads_is_told_what_it_has_and_what_helps(self):
        with pytest.raises(ValueError, match=r"channels \(MLII, ABP\) is one of the leads I II: .* --rename"):
            conform([channel(name="MLII"), channel(name="ABP")], leads("I", "II"))

    def test_a_missing_lead_is_zeros_and_not_kept(self):
        for values in (RAMP + 5, RAMP + 0.5):
            signal = conform([channel(values)], leads("I", "II", "V1"))
            assert signal.keep == [False, True, False]
            assert not signal.array_CT[[0, 2]].any()
            assert signal.flat == []
            assert signal.gaps == {}

    @pytest.mark.parametrize("fewest", [1, 2, 3])
    def test_a_record_needs_as_many_leads_with_a_signal_as_are_asked_for(self, fewest):
        three = [channel(name="I"), channel(name="II"), channel(np.full(100, 7), "V1")]  # one of them flat
        wanted = leads("I", "II", "V1", "V2", fewest=fewest)
        if fewest <= 2:
            assert conform(three, wanted).keep == [True, True, False, False]
        else:
            with pytest.raises(ValueError, match="2 of its leads carry a signal, fewer than the 3 asked for"):
                conform(three, wanted)


class TestStorage:
    """What integers become, and what they are when read again."""

    def test_integers_stay_what_they_are_with_a_scale_of_one_by_the_gain(self):
        own = [noise(seed, low=-32768, high=32768) for seed in range(3)]
        gains = [1000.0, 204.8, 2963.77]
        channels = [channel(v, n, gain=g) for v, n, g in zip(own, ("I", "II", "V1"), gains, strict=True)]
        signal = conform(channels, leads("I", "II", "V1"))
        assert signal.array_CT.dtype == np.int16
        assert np.array_equal(signal.array_CT, own)
        assert signal.scale == [1 / gain for gain in gains]

    @pytest.mark.parametrize("value", [-32768, 32767])
    def test_the_ends_of_int16_fit(self, value):
        signal = conform([channel([0, value], gain=1000.0)], leads())
        assert signal.array_CT.dtype == np.int16
        assert signal.array_CT[0, 1] == value

    @pytest.mark.parametrize("value", [-32769, 32768, -65536, 3_000_000])
    def test_one_integer_beyond_int16_makes_the_record_float_millivolts(self, value):
        wide, narrow = np.array([0, value, 5]), np.array([1, 2, 3])
        channels = [channel(wide, "I", gain=10_000.0), channel(narrow, "II", gain=200.0)]
        signal = conform(channels, leads("I", "II"))
        assert signal.array_CT.dtype == np.float32
        assert signal.scale is None
        assert np.array_equal(signal.array_CT, np.stack([wide / 10_000.0, narrow / 200.0]).astype(np.float32))

    def test_floats_are_rounded_to_float32_once(self):
        values = np.random.default_rng(0).normal(size=500)
        signal = conform([channel(values)], leads())
        assert np.array_equal(signal.array_CT[0], values.astype(np.float32))

    def test_integers_beside_floats_are_float_millivolts(self):
        signal = conform([channel(RAMP, "I", gain=200.0), channel(RAMP / 7, "II")], leads("I", "II"))
        assert np.array_equal(signal.array_CT, np.stack([RAMP / 200.0, RAMP / 7]).astype(np.float32))

    def test_the_callers_values_are_left_as_they_were(self):
        for values in (RAMP.copy(), RAMP / 3):
            mine = channel(values, missing=[4, 5]) if values.dtype.kind == "i" else channel(values)
            before = mine.values_T.copy()
            conform([mine], leads())
            assert np.array_equal(mine.values_T, before)

    @pytest.mark.parametrize("seed", range(40))
    def test_millivolts_read_again_are_the_bits_of_units_by_gain(self, seed):
        rng = np.random.default_rng(seed)
        gains = [rng.choice([200.0, 1000.0, 204.8, 2000.0, 409.6]), rng.uniform(100, 12_000), 10 ** rng.uniform(2, 5)]
        baselines = rng.integers(-1100, 1100, 3)
        raw = rng.integers(-31_000, 31_000, (3, 5_000)) - baselines[:, None]
        channels = [channel(v, n, gain=g) for v, n, g in zip(raw, ("I", "II", "V1"), gains, strict=True)]
        signal = conform(channels, leads("I", "II", "V1"))
        expected = (raw / np.array(gains)[:, None]).astype(np.float32)
        assert signal.array_CT.dtype == np.int16
        assert np.array_equal(to_millivolt(signal.array_CT, signal.scale).view(np.int32), expected.view(np.int32))


class TestUnits:
    """Everything comes out in mV."""

    @pytest.mark.parametrize(
        ("unit", "per_millivolt"),
        [("mV", 1), ("mv", 1), ("uV", 1e3), ("µV", 1e3), ("μV", 1e3), ("nV", 1e6), ("V", 1e-3), (" UV ", 1e3)],
    )
    def test_units_are_scaled_to_millivolts(self, unit, per_millivolt):
        millivolts = np.random.default_rng(1).normal(size=300)
        floats = conform([channel(millivolts * per_millivolt, unit=unit)], leads())
        assert np.allclose(floats.array_CT[0], millivolts, rtol=1e-6, atol=0)
        integers = conform([channel(RAMP, unit=unit, gain=8 / per_millivolt)], leads())
        assert np.allclose(to_millivolt(integers.array_CT, integers.scale)[0], RAMP / 8, rtol=1e-6, atol=0)

    @pytest.mark.parametrize("unit", ["mmHg", "NU", "adu", "", "mA"])
    def test_a_unit_that_is_no_voltage_is_refused_in_a_lead_and_nowhere_else(self, unit):
        channels = [channel(name="II"), channel(name="ABP", unit=unit)]
        assert conform(channels, leads("II")).keep == [True]
        with pytest.raises(ValueError, match=f"its lead ABP is in {unit or 'no unit'}, which is no voltage"):
            conform(channels, leads("II", "ABP"))

    @pytest.mark.parametrize("sign", [-1, 1])
    def test_more_than_500_millivolts_is_refused(self, sign):
        for values, gain in (([0, sign * 500_000], 1000.0), ([0.0, sign * 500.0], 1.0)):
            assert conform([channel(values, gain=gain)], leads()).keep == [True]
        for values, gain in (([0, sign * 500_001], 1000.0), ([0.0, sign * 500.1], 1.0)):
            with pytest.raises(ValueError, match=r"its lead II reaches 500\.?\d* mV, .*: its unit or gain is wrong"):
                conform([channel(values, gain=gain)], leads())

    def test_microvolts_that_are_called_millivolts_are_refused(self):
        with pytest.raises(ValueError, match="reaches 1200 mV"):
            conform([channel(1200 * sine(1, 100, 2))], leads())

    def test_the_least_integer_is_refused_like_any_other_that_is_too_low(self):
        """NaN cast to int64 is this number, which has no absolute value among the int64."""
        with pytest.raises(ValueError, match="its unit or gain is wrong"):
            conform([channel([0, 5, np.iinfo(np.int64).min], gain=1000.0)], leads())

    @pytest.mark.parametrize("value", [np.inf, -np.inf])
    def test_infinite_values_are_refused(self, value):
        with pytest.raises(ValueError, match="its lead II holds infinite values"):
            conform([channel([0.0, 1.0, NAN, value])], leads())

    def test_a_missing_integer_may_be_any_number(self):
        signal = conform([channel([0, 10**12, 4], missing=[1])], leads())
        assert signal.array_CT.tolist() == [[0, 2, 4]]

    def test_a_channel_with_a_fault_is_refused_if_it_is_a_lead(self):
        torn = Channel("V1", "mV", 100.0, RAMP, fault="is torn")
        assert conform([channel(), torn], leads()).keep == [True]
        with pytest.raises(ValueError, match="its lead V1 is torn"):
            conform([channel(), torn], leads("II", "V1"))


class TestGaps:
    """Short ones are bridged, long ones take the lead with them."""

    @pytest.mark.parametrize("seed", range(10))
    def test_a_short_gap_is_interpolated_as_pandas_does_and_held_at_the_ends(self, seed):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=300)
        for start in (0, *rng.integers(10, 270, 5), 290):
            values[start : start + rng.integers(1, 11)] = NAN
        values[-3:] = NAN
        expected = pd.Series(values).interpolate(limit_direction="both").to_numpy()
        signal = conform([channel(values)], leads(longest_gap=0.5))
        assert np.allclose(signal.array_CT[0], expected, rtol=0, atol=1e-6)
        assert np.array_equal(signal.array_CT[0][~np.isnan(values)], values[~np.isnan(values)].astype(np.float32))
        assert signal.gaps == {"II": pytest.approx(np.isnan(values).sum() / 100)}

    @pytest.mark.parametrize("seed", range(10))
    def test_a_short_gap_in_integers_is_filled_with_whole_units(self, seed):
        rng = np.random.default_rng(seed)
        values, missing = noise(seed, 300), rng.random(300) < 0.3
        present = np.flatnonzero(~missing)
        expected = np.rint(np.interp(np.arange(300), present, values[present]))
        marked = np.where(missing, -32768, values)
        signal = conform([channel(marked, gain=1000.0, missing=np.flatnonzero(missing))], leads(longest_gap=1.0))
        assert signal.array_CT.dtype == np.int16
        assert np.array_equal(signal.array_CT[0], expected)
        assert signal.gaps == {"II": missing.sum() / 100}

    @pytest.mark.parametrize(("rate", "longest_gap"), [(100.0, 0.2), (360.0, 0.2), (500.0, 0.05), (100.0, 0.29)])
    @pytest.mark.parametrize("place", ["start", "middle", "end"])
    def test_a_gap_may_be_as_long_as_asked_and_no_sample_longer(self, rate, longest_gap, place):
        longest = round(longest_gap * rate)
        for samples, kept in ((longest, True), (longest + 1, False)):
            values = sine(3, rate, 2)
            start = {"start": 0, "middle": 50, "end": len(values) - samples}[place]
            values[start : start + samples] = NAN
            signal = conform(
                [channel(values, "I", rate=rate), channel(sine(3, rate, 2), rate=rate)],
                leads("I", "II", rate=rate, longest_gap=longest_gap),
            )
            assert signal.keep == [kept, True]
            assert signal.gaps == {"I": pytest.approx(samples / rate, abs=1e-4)}
            assert signal.array_CT[0].any() == kept

    def test_many_short_gaps_are_no_long_one(self):
        values = sine(2, 100, 10)
        values[::2] = NAN
        signal = conform([channel(values)], leads(longest_gap=0.01))
        assert signal.keep == [True]
        assert signal.gaps == {"II": 5.0}

    def test_without_a_longest_gap_a_single_nan_costs_the_lead(self):
        values = sine(2, 100, 2)
        values[77] = NAN
        signal = conform([channel(values), channel(noise(0), "I")], leads("I", "II", longest_gap=0.0))
        assert signal.keep == [True, False]

    def test_a_lead_of_nan_is_missing_however_long_a_gap_may_be(self):
        signal = conform([channel(np.full(100, NAN), "I"), channel()], leads("I", "II", longest_gap=60.0))
        assert signal.keep == [False, True]
        assert not signal.array_CT[0].any()
        assert signal.flat == []
        assert signal.gaps == {"I": 1.0}

    def test_a_record_of_nan_is_refused(self):
        with pytest.raises(ValueError, match="no lead carries a signal: each is missing, NaN or flat"):
            conform([channel(np.full(100, NAN), name) for name in ("I", "II")], leads("I", "II", longest_gap=60.0))

    def test_no_nan_is_ever_stored(self):
        values = np.random.default_rng(3).normal(size=(3, 400))
        values[0, 100:200], values[1, :5], values[2, 20:23] = NAN, NAN, NAN
        channels = [channel(v, n) for v, n in zip(values, ("I", "II", "V1"), strict=True)]
        for rate in (100.0, 128.0):
            signal = conform(channels, leads("I", "II", "V1", rate=rate, resample=True))
            assert np.isfinite(signal.array_CT).all()
            assert signal.keep == [False, True, True]


class TestFlatLeads:
    """A lead that holds one value is there, and carries nothing."""

    def test_a_flat_lead_is_marked_and_its_values_stay(self):
        signal = conform([channel(np.full(100, -40), "I"), channel()], leads("I", "II"))
        assert signal.keep == [False, True]
        assert signal.flat == ["I"]
        assert (signal.array_CT[0] == -40).all()

    def test_a_flat_lead_keeps_its_value_at_another_rate(self):
        flat, live = np.full(360, 1.25), sine(5, 360, 1)
        signal = conform(
            [channel(flat, "I", rate=360.0), channel(live, rate=360.0)], leads("I", "II", rate=128.0, resample=True)
        )
        assert signal.flat == ["I"]
        assert signal.array_CT.shape == (2, 128)
        assert (signal.array_CT[0] == 1.25).all()

    def test_a_lead_that_is_flat_but_for_its_gaps_is_flat(self):
        values = np.full(100, 0.5)
        values[10:15] = NAN
        signal = conform([channel(values, "I"), channel()], leads("I", "II"))
        assert signal.flat == ["I"]

    def test_one_other_value_is_a_signal(self):
        assert conform([channel([3] * 50 + [4] + [3] * 49)], leads()).flat == []

    def test_a_record_of_flat_leads_is_refused(self):
        with pytest.raises(ValueError, match="no lead carries a signal"):
            conform([channel(np.full(100, 7), "I"), channel(np.zeros(100), "II")], leads("I", "II"))


class TestDuration:
    """Records that are too short, and leads that do not belong together."""

    def test_leads_of_another_duration_are_refused(self):
        with pytest.raises(ValueError, match="its leads differ in length, from 0.9 to 1 s"):
            conform([channel(RAMP[:90], "I"), channel(RAMP, "II")], leads("I", "II"))

    def test_leads_that_differ_by_a_sample_end_with_the_shorter(self):
        signal = conform([channel(RAMP[:99], "I"), channel(RAMP, "II")], leads("I", "II"))
        assert np.array_equal(signal.array_CT, [RAMP[:99], RAMP[:99]])

    @pytest.mark.parametrize("empty", [np.zeros(0), np.zeros(0, np.int64)])
    def test_a_record_without_samples_is_refused(self, empty):
        with pytest.raises(ValueError, match="it holds no samples"):
            conform([channel(empty)], leads())

    def test_a_record_shorter_than_asked_is_refused(self):
        assert conform([channel(RAMP)], leads(shortest=1.0)).array_CT.shape == (1, 100)
        with pytest.raises(ValueError, match="it is 0.99 s long, less than the 1 s asked for"):
            conform([channel(RAMP[:99])], leads(shortest=1.0))


class TestRates:
    """One folder, one rate."""

    def test_another_rate_is_refused_unless_resampling_was_asked_for(self):
        with pytest.raises(ValueError, match="it has 360 Hz and the folder 128 Hz: .* --sampling-rate"):
            conform([channel(rate=360.0)], leads(rate=128.0))

    def test_records_that_have_the_rate_stay_integers(self):
        signal = conform([channel(RAMP)], leads(resample=True))
        assert signal.array_CT.dtype == np.int16

    @pytest.mark.parametrize(("old", "new"), [(360, 128), (500, 100), (100, 500), (257, 100), (1000, 128), (128, 360)])
    def test_a_slow_sine_at_another_rate_is_that_sine(self, old, new):
        """To 0.2 % of its height, which is the ripple of the filter; the first and last half second aside."""
        signal = conform([channel(sine(7, old, 10), rate=float(old))], leads(rate=float(new), resample=True))
        assert signal.array_CT.dtype == np.float32
        assert signal.scale is None
        expected = sine(7, new, 10)
        assert signal.array_CT.shape == (1, len(expected))
        middle = slice(new // 2, -new // 2)
        assert np.abs(signal.array_CT[0] - expected)[middle].max() < 2e-3

    def test_resampled_integers_are_in_millivolts(self):
        units = np.rint(1000 * sine(7, 360, 10)).astype(np.int64)
        signal = conform([channel(units, rate=360.0, gain=1000.0)], leads(rate=128.0, resample=True))
        assert np.abs(signal.array_CT[0] - sine(7, 128, 10))[64:-64].max() < 3e-3

    def test_what_the_new_rate_can_not_hold_does_not_come_back_as_something_else(self):
        """100 Hz in 500 Hz would be a constant at 100 Hz; a hundredth of it may remain."""
        fast = sine(100, 500, 10, phase=np.pi / 2)
        assert np.allclose(fast[::5], 1.0)
        signal = conform([channel(fast, rate=500.0)], leads(rate=100.0, resample=True))
        assert np.abs(signal.array_CT[0][50:-50]).max() < 0.01

    @pytest.mark.parametrize(("old", "new"), [(500, 100), (360, 128), (100, 250)])
    def test_an_offset_and_a_drift_leave_no_transient_at_the_ends(self, old, new):
        """A plain filter, for which all is zero before and after, is off by 20 mV at the first sample."""
        times = np.arange(10 * old) / old
        signal = conform([channel(40.0 + 3.0 * times, rate=float(old))], leads(rate=float(new), resample=True))
        expected = 40.0 + 3.0 * np.arange(10 * new) / new
        error = np.abs(signal.array_CT[0] - expected)
        assert error.max() < 0.07
        assert max(error[:new].max(), error[-new:].max()) <= 1.3 * error[new:-new].max() + 1e-5

    @pytest.mark.parametrize(("old", "new"), [(500, 100), (360, 128), (100, 250), (100, 500)])
    def test_the_offset_of_an_electrode_adds_nothing_to_the_ecg(self, old, new):
        """To 10 uV: of 200 mV, as a recorder that measures from 0 Hz on writes them."""
        wanted, ecg = leads(rate=float(new), resample=True), sine(7, old, 10)
        without, with_offset = (conform([channel(ecg + mv, rate=float(old))], wanted).array_CT[0] for mv in (0, 200))
        assert np.abs(with_offset.astype(np.float64) - without - 200).max() < 0.01

    @pytest.mark.parametrize(("samples", "old", "new", "expected"), [(5000, 500, 100, 1000), (3600, 360, 128, 1280)])
    def test_ten_seconds_stay_ten_seconds(self, samples, old, new, expected):
        signal = conform([channel(noise(0, samples), rate=float(old))], leads(rate=float(new), resample=True))
        assert signal.array_CT.shape == (1, expected)

    def test_leads_of_several_rates_come_to_one(self):
        rates = {"I": 500, "II": 125, "V1": 250}
        channels = [channel(sine(5, rate, 8), name, rate=float(rate)) for name, rate in rates.items()]
        signal = conform(channels, leads(*rates, rate=250.0, resample=True))
        assert signal.array_CT.shape == (3, 2000)
        assert np.abs(signal.array_CT - sine(5, 250, 8))[:, 125:-125].max() < 2e-3

    def test_a_flat_lead_costs_the_others_no_sample(self):
        """1,001 samples at 500 Hz hold the moments 0, 0.01, ..., 2.00 s: 201 samples at 100 Hz."""
        alone = conform([channel(noise(0, 1001), rate=500.0)], leads(rate=100.0, resample=True))
        both = [channel(noise(0, 1001), rate=500.0), channel(np.zeros(1001), "I", rate=500.0)]
        assert conform(both, leads("I", "II", rate=100.0, resample=True)).array_CT.shape == (2, alone.array_CT.shape[1])
