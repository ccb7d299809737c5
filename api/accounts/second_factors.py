"""A second factor: made, confirmed, used for logging in, taken away."""

from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from api import answers, asked, attempts, bodies
from api.accounts import auth, devices, meant_tenant
from api.accounts.seldom import seldom
from api.asked import HttpRequest, Sender
from api.parts import Parts
from api.rights import may, open_to_all
from api.routes import delete, post
from commands import tenants as tenant_commands
from commands.accounts import challenges, logging_in
from commands.accounts import second_factor as commands
from domain import tenants


class FactorBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`code`: of the second factor that there is, or a recovery code; needed if there is one."""

    current_password: str
    code: str | None = None


class CodeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: str


class ChallengeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`challenge`: of the answer to a log-in."""

    challenge: str


class AnswerBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`code`: of the authenticator, or a recovery code."""

    challenge: str
    code: str


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """Shown once. `uri`: what the QR code for the authenticator holds."""

    secret: str
    uri: str


class RecoveryCodes(msgspec.Struct, frozen=True, kw_only=True):
    """Shown once, good once each."""

    recovery_codes: list[str]


class Enrolled(auth.Session, frozen=True, kw_only=True):
    """A session that began with making the second factor."""

    recovery_codes: list[str]


class SecondFactorController(Controller):
    tags = ("accounts",)

    @post(
        "/users/me/second-factor",
        operation_id="enrolSecondFactor",
        operation_class=answers.Command,
        guards=[may("account:write"), seldom],
        dto=bodies.named("second_factor", FactorBody),
    )
    async def enrol(
        self, data: JSONBody[FactorBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[Enrolment]]:
        """Make a second factor, or another one, which takes a code of the old one. It counts from its confirmation on, within 30 minutes.
        403 if the current password or the code is not right, 422 without a code where one is needed."""
        command = commands.Enrol(
            account_id=sender.who.account_id,
            current_password=data.current_password,
            code=data.code,
            version=sender.version,
        )
        issuer = await _issuer(sender.who.tenant_id, sender.parts)
        async with attempts.counted_current(sender):
            made = await commands.enrol(command, issuer, sender.caller, sender.ledger, sender.parts.passwords)
        head = await sender.ledger.head(sender.who.tenant_id)
        headers = {**answers.headers(sender.shown(head.position)), **auth.NO_STORE}
        body = Enrolment(secret=made.secret, uri=made.uri)
        return Response(answers.Data(body), status_code=201, headers=headers)

    @post(
        "/users/me/second-factor/confirmation",
        operation_id="confirmSecondFactor",
        operation_class=answers.Command,
        guards=[may("account:write"), seldom],
        dto=bodies.named("second_factor", CodeBody),
        status_code=200,
    )
    async def confirm(
        self, data: JSONBody[CodeBody], sender: NamedDependency[Sender]
    ) -> Response[answers.Data[RecoveryCodes]]:
        """From now on logging in takes a code. The recovery codes are for the loss of the authenticator; a repeat shows none. 403 if
        the code is wrong, 409 after ten that were."""
        who, version = sender.who, sender.version
        done = await commands.confirm(who.account_id, data.code, sender.caller, sender.ledger, version=version)
        headers = {**answers.headers(sender.shown(done.receipt.position)), **auth.NO_STORE}
        body = RecoveryCodes(recovery_codes=done.recovery_codes)
        return Response(answers.Data(body), status_code=200, headers=headers)

    @post(
        "/users/me/second-factor/removal",
        operation_id="removeSecondFactor",
        operation_class=answers.Command,
        guards=[may("account:write"), seldom],
        dto=bodies.named("second_factor", FactorBody),
        status_code=204,
    )
    async def remove(self, data: JSONBody[FactorBody], sender: NamedDependency[Sender]) -> Response[None]:
        """The password alone is enough again. 403 if it or the code is not right, 422 without a code, 409 if the tenant lets nobody in
        without a second factor."""
        tenant = await tenant_commands.show(sender.who.tenant_id, sender.ledger)
        command = commands.Disable(
            account_id=sender.who.account_id,
            current_password=data.current_password,
            required=tenant.second_factor == tenants.SecondFactor.REQUIRED,
            code=data.code,
            version=sender.version,
        )
        async with attempts.counted_current(sender):
            receipt = await commands.disable(command, sender.caller, sender.ledger, sender.parts.passwords)
        return answers.nothing(sender.shown(receipt.position))

    @delete(
        "/users/{user_id:uuid}/second-factor",
        operation_id="removeSecondFactorOf",
        operation_class=answers.Command,
        guards=[may("accounts:write")],
    )
    async def remove_of(self, user_id: FromPath[UUID], sender: NamedDependency[Sender]) -> Response[None]:
        """For somebody who lost the authenticator and the recovery codes: the password alone is enough again, or another one has to be
        made if the tenant wants one. A mail tells the person. 409 for one's own."""
        receipt = await commands.remove(user_id, sender.caller, sender.ledger, version=sender.version)
        return answers.nothing(sender.shown(receipt.position))

    @post(
        "/auth/second-factor",
        operation_id="logInWithSecondFactor",
        opt=open_to_all("to log in"),
        operation_class=answers.CodeOperation,
        dto=bodies.named("session", AnswerBody),
        status_code=200,
    )
    async def log_in(
        self, data: JSONBody[AnswerBody], request: HttpRequest, parts: NamedDependency[Parts]
    ) -> Response[answers.Data[auth.Session]]:
        """Go on with a log-in that was answered 401 with a challenge. 403 for a wrong code, 429 after many."""
        challenge = await meant_tenant.of_challenge(data.challenge, parts)
        tenant_id = challenge.tenant_id
        caller, device = asked.nobody(request, tenant_id), devices.of(request)
        logged_in = await commands.log_in(challenge, data.code, caller, parts.ledger, device, parts.session_limits)
        return auth.answer(logged_in, tenant_id, request, parts, status=200)

    @post(
        "/auth/second-factor/enrolment",
        operation_id="enrolSecondFactorAtLogIn",
        opt=open_to_all("to log in"),
        operation_class=answers.CodeOperation,
        dto=bodies.named("session", ChallengeBody),
    )
    async def enrol_at_log_in(
        self, data: JSONBody[ChallengeBody], request: HttpRequest, parts: NamedDependency[Parts]
    ) -> Response[answers.Data[Enrolment]]:
        """Make the second factor that the tenant wants, with the challenge of a log-in."""
        challenge = await meant_tenant.of_challenge(data.challenge, parts)
        account = await challenges.account_of(challenge, parts.ledger, enrol=True)
        issuer = await _issuer(challenge.tenant_id, parts)
        nobody = asked.nobody(request, challenge.tenant_id)
        made = await commands.begin(account, issuer, challenge.before, nobody, parts.ledger)
        body = Enrolment(secret=made.secret, uri=made.uri)
        return Response(answers.Data(body), status_code=201, headers=auth.NO_STORE)

    @post(
        "/auth/second-factor/confirmation",
        operation_id="confirmSecondFactorAtLogIn",
        opt=open_to_all("to log in"),
        operation_class=answers.CodeOperation,
        dto=bodies.named("session", AnswerBody),
        status_code=200,
    )
    async def confirm_at_log_in(
        self, data: JSONBody[AnswerBody], request: HttpRequest, parts: NamedDependency[Parts]
    ) -> Response[answers.Data[Enrolled]]:
        """Confirm it by its first code, and be logged in."""
        challenge = await meant_tenant.of_challenge(data.challenge, parts)
        tenant_id = challenge.tenant_id
        account = await challenges.account_of(challenge, parts.ledger, enrol=True)
        done = await commands.confirm(account.id, data.code, asked.nobody(request, tenant_id), parts.ledger)
        caller, device = asked.nobody(request, tenant_id), devices.of(request)
        logged_in = await logging_in.start_session(
            done.receipt.aggregate, challenge.before, device, caller, parts.ledger, parts.session_limits
        )
        session = auth.answer(logged_in, tenant_id, request, parts, status=200)
        body = Enrolled(**msgspec.structs.asdict(session.content.data), recovery_codes=done.recovery_codes)
        return Response(answers.Data(body), status_code=200, headers=dict(session.headers))


async def _issuer(tenant_id: UUID, parts: Parts) -> str:
    """What an authenticator shows beside the address."""
    return (await tenant_commands.show(tenant_id, parts.ledger)).name
