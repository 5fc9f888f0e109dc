"""What is wrong with a request, as the protocols tell it."""


class RequestError(Exception):
    """A request that is refused: an HTTP status, and a message for the client.

    Args:
        status: HTTP status, 400…599.
        message: what was received and what is expected; becomes {"error": message}.
        retry_after: seconds after which the client may try again, if it may.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


def invalid(message: str) -> RequestError:
    """Return the error of a request that no repetition makes right: status 400."""
    return RequestError(400, message)


def overloaded(message: str) -> RequestError:
    """Return the error of a server that has no room now: status 503, Retry-After."""
    return RequestError(503, message, retry_after=1)
