"""Invitations into one's tenant."""

from datetime import datetime
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from api import answers, bodies
from api.asked import Reader, Sender
from api.rights import may
from api.routes import delete, get, post
from commands import invitations as commands
from domain import accounts

PATH = "/api/v1/invitations"


class InvitationBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    email: str
    role: str = accounts.Role.USER


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """One that can be accepted. Its token is in the mail and nowhere else."""

    id: UUID
    email: str
    role: str
    good_until: datetime
    inserted_at: datetime


class InvitationController(Controller):
    path = "/invitations"
    tags = ("accounts",)

    @post(
        operation_id="invite",
        operation_class=answers.Command,
        guards=[may("accounts:invite")],
        dto=bodies.named("invitation", InvitationBody),
    )
    async def issue(
        self, data: JSONBody[InvitationBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[Invitation]]:
        """Have a mail sent, by which an account can be made for a fortnight, with this role. 409 if the address has an account."""
        command = commands.Issue(email=data.email, role=data.role)
        receipt = await commands.issue(command, sender.caller, sender.ledger)
        made = receipt.aggregate
        resource = Invitation(
            id=made.id,
            email=accounts.written_email(data.email),
            role=made.role,
            good_until=made.good_until,
            inserted_at=made.created_on,
        )
        return answers.created(resource, sender.shown(receipt.position), f"{PATH}/{made.id}")

    @get(operation_id="listInvitations", operation_class=answers.Query, guards=[may("accounts:invite")])
    async def index(self, reader: NamedDependency[Reader]) -> Response[answers.Page[Invitation]]:
        """Those that can be accepted, the newest first; never more than fit on one page."""
        head = await reader.head()
        found = await commands.still_open(reader.tenant_id, reader.parts.ledger)
        resources = [
            Invitation(
                id=each.id, email=each.email, role=each.role, good_until=each.good_until, inserted_at=each.issued_at
            )
            for each in found
        ]
        return answers.page(resources, None, reader.shown(head), 0)

    @delete(
        "/{invitation_id:uuid}",
        operation_id="revokeInvitation",
        operation_class=answers.Command,
        guards=[may("accounts:invite")],
    )
    async def revoke(self, invitation_id: FromPath[UUID], sender: NamedDependency[Sender]) -> Response[None]:
        """It counts no more. 409 if it was accepted."""
        receipt = await commands.revoke(invitation_id, sender.caller, sender.ledger)
        return answers.nothing(sender.shown(receipt.position))
