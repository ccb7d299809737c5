"""One's password: another one, or one for the one that was forgotten."""

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
from api.routes import post, put
from api.sent import Answer
from commands.accounts import forgotten
from commands.accounts import password as commands


class PasswordBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    current_password: str
    password: str


class ForgottenBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tenant` as for logging in."""

    email: str
    tenant: str | None = None


class ResetBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`token` came by mail."""

    token: str
    password: str


class PasswordController(Controller):
    tags = ("accounts",)

    @put(
        "/users/me/password",
        operation_id="changePassword",
        operation_class=answers.Command,
        guards=[may("account:write"), seldom],
        dto=bodies.named("user", PasswordBody),
        status_code=204,
    )
    async def change(self, data: JSONBody[PasswordBody], sender: NamedDependency[Sender]) -> Response[None]:
        """Choose another password; 403 if the current one is not right, 429 after many that were not. All other sessions end, and a mail
        says that it was done."""
        who = sender.who
        command = commands.ChangePassword(
            account_id=who.account_id,
            session_id=who.session_id,
            current=data.current_password,
            new=data.password,
            version=sender.version,
        )
        async with attempts.counted_current(sender):
            receipt = await commands.change_password(command, sender.caller, sender.ledger, sender.parts.passwords)
        return answers.nothing(sender.shown(receipt.position))

    @post(
        "/auth/password/forgot",
        operation_id="forgotPassword",
        opt=open_to_all("who forgot a password has no token"),
        operation_class=answers.PublicOperation,
        dto=bodies.named("user", ForgottenBody),
        status_code=202,
    )
    async def forgot(
        self, data: JSONBody[ForgottenBody], request: HttpRequest, parts: NamedDependency[Parts]
    ) -> Response[None]:
        """Have a mail sent, by which a new password can be chosen within an hour. The answer is the same whether the address has an
        account or not."""
        tenant_id = await meant_tenant.of(data.tenant, request, parts)
        await forgotten.ask(data.email, tenant_id, parts.ledger)
        return Answer(None, status_code=202, headers={})

    @post(
        "/auth/password/reset",
        operation_id="resetPassword",
        opt=open_to_all("the token of the mail says who it is"),
        operation_class=answers.CodeOperation,
        dto=bodies.named("user", ResetBody),
        status_code=204,
    )
    async def reset(
        self, data: JSONBody[ResetBody], request: HttpRequest, parts: NamedDependency[Parts]
    ) -> Response[None]:
        """Choose a new password by the token of a mail, which is good once. All sessions end."""
        caller = asked.nobody(request, await meant_tenant.of_token(data.token, parts))
        command = commands.ResetPassword(token=data.token, new=data.password)
        await commands.reset_password(command, caller, parts.ledger, parts.passwords)
        return Answer(None, status_code=204, headers={})
