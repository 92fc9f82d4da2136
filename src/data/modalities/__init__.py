"""The modalities that shards can hold, by their name in index.json."""

from src.data.modalities.ct import CT
from src.data.modalities.ecg import ECG
from src.data.modality import Modality

MODALITIES: dict[str, Modality] = {"ct": CT, "ecg": ECG}
