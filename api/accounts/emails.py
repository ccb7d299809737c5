"""One's address: shown to be one's own, and changed to another one."""

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import JSONBody

from api import answers, asked, attempts, bodies
from api.accounts import meant_tenant
from api.accounts.seldom import seldom
from api.asked import HttpRequest, Sender
from api.parts import Parts
from api.rights import may, open_to_all
from api.routes import post
from api.sent import Answer
from commands.accounts import email as commands


class EmailBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    email: str
    current_password: str


class TokenBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`token` came by mail."""

    token: str


class EmailController(Controller):
    tags = ("accounts",)

    @post(
        "/users/me/email/verification",
        operation_id="askEmailVerification",
        operation_class=answers.Command,
        guards=[may("account:write"), seldom],
        status_code=202,
    )
    async def ask(self, sender: NamedDependency[Sender]) -> Response[None]:
        """Have another mail sent to one's address, by which to show that it is one's own; none if that was shown."""
        who, version = sender.who, sender.version
        receipt = await commands.ask_verification(who.account_id, sender.caller, sender.ledger, version=version)
        return Answer(None, status_code=202, headers=answers.headers(sender.shown(receipt.position)))

    @post(
        "/auth/email/verify",
        operation_id="verifyEmail",
        opt=open_to_all("the token of the mail says who it is"),
        operation_class=answers.CodeOperation,
        dto=bodies.named("user", TokenBody),
        status_code=204,
    )
    async def verify(
        self, data: JSONBody[TokenBody], request: HttpRequest, parts: NamedDependency[Parts]
    ) -> Response[None]:
        """Show that an address is one's own, by the token that was mailed there."""
        caller = asked.nobody(request, await meant_tenant.of_token(data.token, parts))
        await commands.verify(commands.Confirm(token=data.token), caller, parts.ledger)
        return Answer(None, status_code=204, headers={})

    @post(
        "/users/me/email",
        operation_id="askEmailChange",
        operation_class=answers.Command,
        guards=[may("account:write"), seldom],
        dto=bodies.named("user", EmailBody),
        status_code=202,
    )
    async def ask_change(self, data: JSONBody[EmailBody], sender: NamedDependency[Sender]) -> Response[None]:
        """Have a mail sent to another address, by which it becomes one's own; until then nothing changes. 403 if the current password
        is not right."""
        command = commands.AskChange(
            account_id=sender.who.account_id,
            email=data.email,
            current_password=data.current_password,
            version=sender.version,
        )
        async with attempts.counted_current(sender):
            receipt = await commands.ask_change(command, sender.caller, sender.ledger, sender.parts.passwords)
        return Answer(None, status_code=202, headers=answers.headers(sender.shown(receipt.position)))

    @post(
        "/auth/email/change",
        operation_id="changeEmail",
        opt=open_to_all("the token of the mail says who it is"),
        operation_class=answers.CodeOperation,
        dto=bodies.named("user", TokenBody),
        status_code=204,
    )
    async def change(
        self, data: JSONBody[TokenBody], request: HttpRequest, parts: NamedDependency[Parts]
    ) -> Response[None]:
        """Make the address to which the token was mailed one's own; the old one is told. 409 if somebody else has it by now."""
        caller = asked.nobody(request, await meant_tenant.of_token(data.token, parts))
        await commands.change(commands.Confirm(token=data.token), caller, parts.ledger)
        return Answer(None, status_code=204, headers={})
