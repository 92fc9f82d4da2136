"""The modalities that shards can hold, by their name in index.json."""

from src.data.modalities.ct import CT
from src.data.modalities.ecg import ECG
from src.data.modalities.image import IMAGE
from src.data.modalities.video import VIDEO
from src.data.modality import Modality

MODALITIES: dict[str, Modality] = {"ecg": ECG, "image": IMAGE, "video": VIDEO, "ct": CT}
