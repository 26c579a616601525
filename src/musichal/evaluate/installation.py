"""What of this installation differs from the one that trained a partner, and whether it matters.

What identifies hearing (the encoder's and the note model's digests) must be equal. Versions may differ: whether that
matters is not guessed but asked, by parity.
"""

from dataclasses import replace

from musichal.errors import InputError
from musichal.evaluate.parity import LiveStream
from musichal.evaluate.verification import Check
from musichal.hearing.encoders import create_encoder
from musichal.hearing.notes import note_model_digest
from musichal.hearing.percepts import SOURCES
from musichal.machine import installed
from musichal.memory.partner_file import PartnerModel
from musichal.spec import PerceptionSpec

_SHOWN_DIGITS = 12


def same_installation(model: PartnerModel) -> bool:
    """Return whether everything that trained the partner is here in the same version."""
    return all(installed(name) == there for name, there in model.versions.items())


def identity_checks(spec: PerceptionSpec) -> tuple[Check, ...]:
    """Return the checks of the digests that must be equal for hearing to be the partner's."""
    here, cause = "none", "this MusicHal's encoder hears in another way"
    try:
        here = create_encoder(replace(spec, encoder=replace(spec.encoder, digest=""))).digest
    except InputError as error:
        cause = str(error)
    return (
        _digest(f"encoder {spec.encoder.name}", spec.encoder.digest, here, cause),
        _digest("note model", spec.notes.digest, note_model_digest(), "notes are heard by another model; tokens are not"),
    )


def _digest(name: str, there: str, here: str, cause: str) -> Check:
    passed = there == here
    return Check(
        group="spec",
        name=name,
        expected=there[:_SHOWN_DIGITS] or "none",
        found=here[:_SHOWN_DIGITS] or "none",
        passed=passed,
        detail="digest in the partner and digest here",
        cause="" if passed else cause,
        values={"partner": there, "here": here},
    )


def version_checks(model: PartnerModel, *, parity_holds: bool | None) -> tuple[Check, ...]:
    """Return one check per part of the installation, for information: parity says whether a difference matters."""
    verdict = {
        True: "does not matter: tokens are the same",
        False: "may be why tokens differ",
        None: "whether it matters is not known: parity was not asked",
    }[parity_holds]
    checks = []
    for name, there in sorted(model.versions.items()):
        here = installed(name)
        checks.append(
            Check(
                group="spec",
                name=name,
                expected=there,
                found=here,
                passed=None,
                detail="the same" if here == there else verdict,
                values={"trained_with": there, "here": here, "differs": here != there},
            )
        )
    return tuple(checks)


def precision_check(live: LiveStream) -> Check:
    """Return the check that features come in the precision that vocabularies are learned and kept in."""
    found = [str(features.dtype) for features in live.features]
    passed = set(found) == {"float32"}
    return Check(
        group="spec",
        name="precision of features",
        expected="float32",
        found=found[0] if len(set(found)) == 1 else ", ".join(found),
        passed=passed,
        detail="vocabularies are learned from float32 and kept in it",
        cause="" if passed else "an encoder of another precision",
        values=dict(zip(SOURCES, found, strict=True)),
    )
