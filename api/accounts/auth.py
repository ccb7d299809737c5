"""Register, log in, refresh, log out."""

from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.params import JSONBody

from api import answers, asked, attempts, bodies, errors, rights, tokens
from api.accounts import devices, meant_tenant, users
from api.asked import HttpRequest, Sender
from api.parts import Parts
from api.rights import may, open_to_all
from api.routes import post
from commands import accounts as commands
from commands import sessions, tenant_settings
from commands.accounts import challenges, joining
from domain import tenants

NO_STORE = {"Cache-Control": "no-store"}  # tokens lie in no cache (RFC 6749, 5.1)


class RegisterBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tenant` is a slug; without it the host name says it, or the installation's default. `invitation`: the token of one, which
    says the tenant by itself."""

    email: str
    name: str
    password: str
    tenant: str | None = None
    invitation: str | None = None


class LogInBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tenant` as for registering."""

    email: str
    password: str
    tenant: str | None = None


class RefreshBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    refresh_token: str


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """`expires_in` seconds of the access token. The refresh token is good once."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int
    user: users.Me


class AuthController(Controller):
    path = "/auth"
    tags = ("accounts",)

    @post(
        "/register",
        operation_id="register",
        operation_class=answers.LogInOperation,
        dto=bodies.named("user", RegisterBody),
        opt=open_to_all("whoever registers has no account yet"),
    )
    async def register(
        self, data: JSONBody[RegisterBody], request: HttpRequest, parts: NamedDependency[Parts]
    ) -> Response[answers.Data[Session]]:
        """Make an account and log it in: with the role user, or with an invitation's. 403 if the tenant does not let everybody in."""
        parts.passwords.check_room()
        if data.invitation is not None:
            tenant_id = await meant_tenant.of_token(data.invitation, parts)
        else:
            tenant_id = await meant_tenant.of(data.tenant, request, parts)
        if tenant_id == tenants.PLATFORM_ID and data.invitation is None:
            text = "Nobody registers in the platform's own tenant. Name the tenant that you belong to."
            raise errors.RequestRefused(errors.INVALID, text, {"tenant": [text]})
        command = joining.Join(email=data.email, name=data.name, password=data.password, invitation=data.invitation)
        made = await joining.join(command, asked.nobody(request, tenant_id), parts.ledger, parts.passwords)
        account = made.aggregate
        before = await sessions.fence(account.id, tenant_id, parts.ledger)
        await challenges.ask(account, before, parts.ledger)
        caller = asked.nobody(request, tenant_id)
        logged_in = await commands.start_session(
            account, before, devices.of(request), caller, parts.ledger, parts.session_limits
        )
        return answer(logged_in, tenant_id, request, parts, status=201)

    @post(
        "/login",
        operation_id="logIn",
        operation_class=answers.LogInOperation,
        dto=bodies.named("user", LogInBody),
        opt=open_to_all("the password says who it is"),
        status_code=200,
    )
    async def log_in(
        self, data: JSONBody[LogInBody], request: HttpRequest, parts: NamedDependency[Parts]
    ) -> Response[answers.Data[Session]]:
        """Begin a session. A wrong address and a wrong password are refused alike, 401; so is a right password that is not
        enough: then `second_factor` says how to go on."""
        parts.passwords.check_room()  # whoever is one too many learns it before anything is looked up for them
        tenant_id = await meant_tenant.of(data.tenant, request, parts)
        command = commands.LogIn(email=data.email, password=data.password)
        caller, device = asked.nobody(request, tenant_id), devices.of(request)
        async with attempts.counted(tenant_id, data.email, request, parts):
            logged_in = await commands.log_in(
                command, caller, parts.ledger, parts.passwords, device, parts.session_limits
            )
        return answer(logged_in, tenant_id, request, parts, status=200)

    @post(
        "/refresh",
        operation_id="refresh",
        operation_class=answers.LogInOperation,
        dto=bodies.named("session", RefreshBody),
        opt=open_to_all("the refresh token says who it is"),
        status_code=200,
    )
    async def refresh(
        self, data: JSONBody[RefreshBody], request: HttpRequest, parts: NamedDependency[Parts]
    ) -> Response[answers.Data[Session]]:
        """New tokens for a refresh token, which is good no longer then: using it again ends the session. 409 if it is being used
        at the same moment: whoever does that gets the new ones."""
        tenant_id = sessions.tenant_of(data.refresh_token, parts.ledger)
        await tenant_settings.check_open(tenant_id, parts.ledger)
        caller, device = asked.nobody(request, tenant_id), devices.of(request)
        logged_in = await sessions.refresh(data.refresh_token, device, caller, parts.ledger, parts.session_limits)
        return answer(logged_in, tenant_id, request, parts, status=200)

    @post(
        "/logout",
        operation_id="logOut",
        operation_class=answers.Command,
        guards=[may("session:end")],
        status_code=204,
    )
    async def log_out(self, sender: NamedDependency[Sender]) -> Response[None]:
        """End the session: its refresh token is good no longer, its access tokens nowhere after 2 s."""
        who = sender.who
        receipt = await sessions.end(who.session_id, who.account_id, "logged out", sender.caller, sender.ledger)
        return answers.nothing(sender.shown(receipt.position))


def answer(
    logged_in: sessions.LoggedIn, tenant_id: UUID, request: HttpRequest, parts: Parts, status: int
) -> Response[answers.Data[Session]]:
    account, session = logged_in.account, logged_in.session
    access_tokens: tokens.AccessTokens = request.app.state.access_tokens
    access_token = access_tokens.issue(
        tenant_id=tenant_id, account_id=account.id, role=account.role, session_id=session.aggregate.id
    )
    body = Session(
        access_token=access_token,
        refresh_token=logged_in.refresh_token,
        token_type="Bearer",
        expires_in=tokens.LIFETIME_S,
        user=users.me(account),
    )
    who = rights.Who(
        tenant_id=tenant_id,
        account_id=account.id,
        role=account.role,
        session_id=session.aggregate.id,
        expires_at=0,
        rights=rights.RIGHTS[account.role],
    )
    position = asked.shown(parts, who, session.position)
    return Response(answers.Data(body), status_code=status, headers={**answers.headers(position), **NO_STORE})
