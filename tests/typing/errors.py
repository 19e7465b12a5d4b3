"""What type checkers must keep accepting: a caller catches a family and gets every member of it."""

from autonomy_trio.errors import AutonomyError, DeliveryError, Denied, NameTaken, Overloaded, UsageError


def member_of_usage(error: NameTaken) -> UsageError:
    return error


def members_of_delivery(error: Denied | Overloaded) -> DeliveryError:
    return error


def families(error: UsageError | DeliveryError) -> AutonomyError:
    return error
