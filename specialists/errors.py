"""Errors of the panel.

SpecialistsError
├── InvalidTask            the task's description cannot be used
├── UnknownTask            no task of that name
├── UnknownBackbone        the catalogue has no such backbone
├── UnknownLabel           the task has no such label
├── SpecialistUnavailable  a specialist of the panel cannot answer
├── SpecialistRefused      what was to be added or exported is not as promised, or says too much
├── InvalidSpecialist      a specialist's folder is incomplete or does not match its manifest
├── InvalidWeights         pretrained weights cannot be read or fit no backbone that is trained
├── InvalidDataset         training data cannot be read or does not fit the task
├── InvalidRecipe          what was asked of a training contradicts itself
├── InvalidMessage         what another machine of the panel sent cannot be read
├── TrainingDiverged       the loss of a training is no longer a finite number
└── PoolOverloaded         a backbone's queue is full: try again later
"""


class SpecialistsError(Exception):
    """Base of everything this package raises on purpose."""


class InvalidTask(SpecialistsError):
    """The task's description cannot be used."""


class UnknownTask(SpecialistsError):
    """No task of that name."""


class UnknownBackbone(SpecialistsError):
    """The catalogue has no such backbone."""


class UnknownLabel(SpecialistsError):
    """The task has no such label."""


class SpecialistUnavailable(SpecialistsError):
    """A specialist of the panel is missing, or failed to load."""


class SpecialistRefused(SpecialistsError):
    """What was to be added or exported is not what it promises, or could name somebody."""


class InvalidSpecialist(SpecialistsError):
    """A specialist's folder is missing, incomplete or does not match its manifest."""


class InvalidWeights(SpecialistsError):
    """Pretrained weights cannot be read, or fit no backbone that is trained."""


class InvalidDataset(SpecialistsError):
    """Training data cannot be read or does not fit the task."""


class InvalidRecipe(SpecialistsError):
    """What was asked of a training contradicts itself."""


class InvalidMessage(SpecialistsError):
    """What another machine of the panel sent cannot be read, or is not what was asked for."""


class TrainingDiverged(SpecialistsError):
    """The loss of a training is no longer a finite number; nothing of it is kept."""


class PoolOverloaded(SpecialistsError):
    """A backbone's queue is full: try again later."""
