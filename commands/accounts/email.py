"""A person's address: shown to be theirs, and changed to another one.

Who asks for a mail changes nothing of the account: there is no event, and so no version that an append could hold to the one that
was named (`If-Match`). It is compared as the account is loaded, and from then on

- a question to another address is refused if all sessions were ended meanwhile (another password, role, deactivation, erasure) or
  the account got another address: the fence, read before the account, has moved (commands/sessions);
- a token to verify an address is good for that address alone (`mailed.to_address`);
- whatever else was changed, such as the name, stays as it was changed: the answer is decided upon the account as it is then.
"""

from uuid import UUID

import msgspec

from commands import mails, repeats, sessions
from commands.accounts import mailed, password
from commands.accounts.mailed import MailedTokenInvalid, Purpose
from commands.accounts.registering import EMAIL, EmailTaken
from commands.passwords import Passwords
from commands.repeats import repeatable
from domain import accounts
from ledger import codec, errors
from ledger.caller import Caller
from ledger.store import Claim, Ledger, Receipt

NEW_ADDRESS = "new address"
"""What the address that a change is about is sealed for."""


class AskChange(msgspec.Struct, frozen=True, kw_only=True):
    """`version`: the account's that this was decided upon, None if any will do."""

    account_id: UUID
    email: str
    current_password: str
    version: int | None = None


class Confirm(msgspec.Struct, frozen=True, kw_only=True):
    token: str


@repeatable(accounts.Account)
async def ask_verification(
    command: UUID, caller: Caller, ledger: Ledger, *, version: int | None = None
) -> Receipt[accounts.Account]:
    """Another mail to the account's address; none if that is verified, or was sent one just now.

    Raises NotFound, AccountDeactivated, VersionConflict.
    """
    account = await ledger.load(accounts.Account, caller.tenant_id, command)
    repeats.check_version(account, version)
    needless = account.email_verified or await mailed.wait(account.tenant_id, account.id, Purpose.VERIFY, ledger)
    secrets = [] if needless else await mailed.verifying(account, ledger)
    return await ledger.append(caller, account, secrets=secrets)


@repeatable(accounts.Account)
async def verify(command: Confirm, caller: Caller, ledger: Ledger) -> Receipt[accounts.Account]:
    """`caller.tenant_id` is the token's. Raises MailedTokenInvalid, AccountDeactivated."""
    account, kept = await _found(command.token, Purpose.VERIFY, caller, ledger)
    await mailed.check_address(account, kept, ledger)
    account.verify_email()
    return await ledger.append(caller, account, secrets=mailed.used(account.id, Purpose.VERIFY))


@repeatable(accounts.Account)
async def ask_change(
    command: AskChange, caller: Caller, ledger: Ledger, passwords: Passwords
) -> Receipt[accounts.Account]:
    """A mail to the new address. Nothing is changed, and nothing reserved, until it was answered; whether somebody else has the
    address is said to who receives its mail alone.

    Raises PasswordWrong, EmailInvalid, MailedTooOften, HashingOverloaded, NotFound, VersionConflict.
    """
    # Before account and password are looked at.
    fenced = await sessions.fenced(command.account_id, caller.tenant_id, ledger)
    account = await ledger.load(accounts.Account, caller.tenant_id, command.account_id)
    repeats.check_version(account, command.version)
    await password.check_current(account, command.current_password, ledger, passwords)
    email = accounts.written_email(command.email)
    if left := await mailed.wait(account.tenant_id, account.id, Purpose.CHANGE, ledger):
        raise mailed.MailedTooOften(left)  # it may be to another address: who mistyped has to be told
    sealed = await ledger.seal(caller.tenant_id, account.id, NEW_ADDRESS, email.encode())
    made = mailed.make(caller.tenant_id, account.id, Purpose.CHANGE, sealed)
    mail = mails.Mail(
        template=mails.Template.CHANGE, to=email, name=account.name, token=made.token, good_until=made.good_until
    )
    secrets = [made.secret, await mails.to_send(mail, caller.tenant_id, account.id, ledger)]
    return await sessions.append(fenced, caller, ledger, account, secrets=secrets)


@repeatable(accounts.Account)
async def change(command: Confirm, caller: Caller, ledger: Ledger) -> Receipt[accounts.Account]:
    """The account has the address to which the token was mailed, and the old one is free, in one transaction. A notice goes to
    the old one; other sessions go on, but who was asking for another address meanwhile, or erasing the person, decides again.
    `caller.tenant_id` is the token's.

    Raises MailedTokenInvalid, EmailTaken, AccountDeactivated.
    """
    _, account_id = mailed.parse(command.token)
    fenced = await sessions.fenced(account_id, caller.tenant_id, ledger)  # before the token is looked at
    account, kept = await _found(command.token, Purpose.CHANGE, caller, ledger)
    clear = await ledger.unseal(caller.tenant_id, account.id, NEW_ADDRESS, kept.sealed)
    if clear is None:
        raise MailedTokenInvalid
    email, before = clear.decode(), account.email
    account.change_email(email)
    notice = mails.Mail(template=mails.Template.CHANGED, to=before, name=account.name, word=email)
    secrets = [
        *mailed.used(account.id, Purpose.CHANGE, Purpose.VERIFY, Purpose.RESET),  # the others went to the old address
        await mails.to_send(notice, caller.tenant_id, account.id, ledger),
    ]
    try:
        return await sessions.append(  # refused if the person was erased meanwhile: the address would be taken for ever
            sessions.moved(account.id, fenced),
            caller,
            ledger,
            account,
            claims=[Claim(EMAIL, accounts.normalise_email(email), account.id)],
            releases=[Claim(EMAIL, accounts.normalise_email(before), account.id)],
            secrets=secrets,
        )
    except errors.ReservationTaken:
        raise EmailTaken(email) from None


async def _found(token: str, purpose: Purpose, caller: Caller, ledger: Ledger) -> tuple[accounts.Account, mailed.Kept]:
    """Raises MailedTokenInvalid."""
    _, account_id = mailed.parse(token)
    # The account first: whoever uses the token meanwhile, or changes the address, then makes its version a conflict.
    account = (await ledger.load_many(accounts.Account, caller.tenant_id, [account_id])).get(account_id)
    _, _, kept = await mailed.find(token, purpose, ledger)
    if account is None or account.email == codec.ERASED:
        raise MailedTokenInvalid
    return account, kept
