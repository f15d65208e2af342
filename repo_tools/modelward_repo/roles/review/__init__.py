"""What a signer sees before signing: worked out from the metadata alone, never read from a file."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from securesystemslib.signer import Key as SslibKey
from tuf.api.metadata import Root, Targets, VerificationResult

from modelward.formats import policy as policies
from modelward.formats import strict
from modelward_repo.roles.request import Request
from modelward_repo.roles.review.cautions import Caution, Level, cautions
from modelward_repo.roles.review.differences import Difference, ability, differences
from modelward_repo.roles.state import OFFLINE, holder, owner_names, title

__all__ = ["Caution", "Difference", "Level", "Power", "Review", "Side", "Who", "review"]


@dataclass(frozen=True)
class Who:
    """A key and its holder.

    Attributes:
        keyid: The key's id.
        name: Its holder, or None where nobody says.
        new: Whether it comes with this request.
    """

    keyid: str
    name: str | None
    new: bool = False

    def __str__(self) -> str:
        return title(self.keyid, self.name)


@dataclass(frozen=True)
class Power:
    """What a role's keys will be able to do.

    Attributes:
        role: The role, or ``layout of <model>``.
        threshold: How many must sign.
        keys: Those who may.
        gone: Those who no longer may.
        ability: What they may do.
        expires: When what they have signed expires; None where it is signed on publishing.
    """

    role: str
    threshold: int
    keys: tuple[Who, ...]
    gone: tuple[Who, ...]
    ability: str
    expires: datetime | None = None


@dataclass(frozen=True)
class Side:
    """Keys of which enough must sign.

    Attributes:
        role: What they sign: root or targets.
        by: Whose threshold it is, such as ``the present root``.
        threshold: How many must sign.
        signed: Who has.
        missing: Who has not.
    """

    role: str
    by: str
    threshold: int
    signed: tuple[Who, ...]
    missing: tuple[Who, ...]

    @property
    def needed(self) -> int:
        """How many more must sign."""
        return max(0, self.threshold - len(self.signed))


@dataclass(frozen=True)
class Review:
    """All that there is to know about a request before signing it.

    Attributes:
        request: The request.
        now: The time by which it is judged.
        differences: What changes.
        powers: Who will be able to do what.
        sides: Who has signed and who is missing.
        cautions: What to be careful about.
    """

    request: Request
    now: datetime
    differences: tuple[Difference, ...]
    powers: tuple[Power, ...]
    sides: tuple[Side, ...]
    cautions: tuple[Caution, ...]

    @property
    def ready(self) -> bool:
        """Whether all that must sign have."""
        return not any(side.needed for side in self.sides)

    @property
    def stops(self) -> tuple[Caution, ...]:
        """What nobody may sign this for."""
        return tuple(item for item in self.cautions if item.level is Level.STOP)

    @property
    def to_type(self) -> tuple[str, ...]:
        """Roles whose names must be typed before signing: something about them is dangerous."""
        found = [item.role for item in self.differences if item.dangerous]
        found += [item.role for item in self.cautions if item.level is Level.DANGER]
        return tuple(dict.fromkeys(found))

    def to_dict(self) -> dict[str, Any]:
        """Return the same for programs."""
        request = self.request
        return {
            "repository": request.repository,
            "sha256": request.digest,
            "words": request.words,
            "created": strict.rfc3339(request.created),
            "note": request.note,
            "ready": self.ready,
            "differences": [
                {"role": item.role, "text": item.text, "dangerous": item.dangerous}
                for item in self.differences
            ],
            "cautions": [
                {"level": item.level.value, "role": item.role, "text": item.text}
                for item in self.cautions
            ],
            "roles": [
                {
                    "role": power.role,
                    "threshold": power.threshold,
                    "keys": [_who(who) for who in power.keys],
                    "removed": [_who(who) for who in power.gone],
                    "may": power.ability,
                    "expires": strict.rfc3339(power.expires) if power.expires else None,
                }
                for power in self.powers
            ],
            "signatures": [
                {
                    "role": side.role,
                    "by": side.by,
                    "threshold": side.threshold,
                    "signed": [_who(who) for who in side.signed],
                    "missing": [_who(who) for who in side.missing],
                    "needed": side.needed,
                }
                for side in self.sides
            ],
            "type_to_sign": list(self.to_type),
        }


def review(request: Request, now: datetime) -> Review:
    """Look at a request.

    Args:
        request: The request.
        now: The time, by the clock of whoever looks.
    """
    return Review(
        request=request,
        now=now,
        differences=differences(request),
        powers=tuple(_powers(request)),
        sides=tuple(_sides(request)),
        cautions=cautions(request, now),
    )


def _powers(request: Request) -> list[Power]:
    old, new = request.before, request.after
    found = []
    for name in new.roles():
        role = new.role(name)
        now, then = new.keys(name), old.keys(name)
        expires = None
        if name in OFFLINE:
            expires = (new.root if name == Root.type else new.targets).expires
        found.append(
            Power(
                role=name,
                threshold=role.threshold if role else 0,
                keys=_people(now, then),
                gone=tuple(Who(i, holder(key)) for i, key in then.items() if i not in now),
                ability=ability(name),
                expires=expires,
            )
        )
    return found + [power for model in new.models() for power in _owners(request, model)]


def _owners(request: Request, model: str) -> list[Power]:
    old, new = request.before, request.after
    path = policies.model_policy_path(model)
    policy, was = new.policy(model), old.policy(model)
    if policy is None:
        return []
    names = {**owner_names(old.documents.get(path)), **owner_names(new.documents.get(path))}
    before = was.owners if was else {}
    owners = sorted(policy.owners, key=lambda keyid: names.get(keyid, ""))
    return [
        Power(
            role=f"layout of {model}",
            threshold=policy.threshold,
            keys=tuple(Who(i, names.get(i), i not in before) for i in owners),
            gone=tuple(Who(i, names.get(i)) for i in before if i not in policy.owners),
            ability=f"say which steps releases of {model} must prove",
        )
    ]


def _people(now: dict[str, SslibKey], then: dict[str, SslibKey]) -> tuple[Who, ...]:
    return tuple(Who(keyid, holder(key), keyid not in then) for keyid, key in now.items())


def _sides(request: Request) -> list[Side]:
    found = []
    root, targets = request.proposed.root, request.proposed.targets
    if root:
        result = root.signed.get_root_verification_result(
            request.trusted.root.signed, root.signed_bytes, root.signatures
        )
        first, second = result.first, result.second
        same = first.threshold == second.threshold and _ids(first) == _ids(second)
        if same:
            found.append(_side("root", "root", second))
        else:
            found += [
                _side("root", "the PRESENT root", first),
                _side("root", "the NEW root", second),
            ]
    if targets:
        part = request.after.root.get_verification_result(
            Targets.type, targets.signed_bytes, targets.signatures
        )
        whose = "the NEW root's targets keys" if root else "the targets keys"
        found.append(_side("targets", whose, part))
    return found


def _ids(result: VerificationResult) -> set[str]:
    return {*result.signed, *result.unsigned}


def _side(role: str, by: str, result: VerificationResult) -> Side:
    return Side(
        role=role,
        by=by,
        threshold=result.threshold,
        signed=tuple(Who(keyid, holder(key)) for keyid, key in result.signed.items()),
        missing=tuple(Who(keyid, holder(key)) for keyid, key in result.unsigned.items()),
    )


def _who(who: Who) -> dict[str, Any]:
    return {"keyid": who.keyid, "holder": who.name, "new": who.new}
