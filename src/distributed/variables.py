"""Environment variables through which the launcher talks to its ranks; free of torch."""

STORE_SOCKET = "MEDSSL_STORE_FD"
"""The launcher's listening socket, handed to rank 0: a port that was merely found free may be taken a moment later."""

DEVICE = "MEDSSL_DEVICE"
"""The device of this rank, as --devices named it."""

LAUNCHER = "MEDSSL_LAUNCHER"
"""Process number of the launcher, with which a rank dies."""

FAILURES = "MEDSSL_FAILURES"
"""Folder in which a rank leaves word of why it ends."""

QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
"""Of a rank, before it loads torch: DDP would advise to switch off what the engine needs."""

JOB = "MEDSSL_JOB"
"""The cluster's number of the job (12, of an array 12_3), where there is one."""

RESTART = "MEDSSL_RESTART"
"""How often the cluster has put this job back into its queue and started it again."""
