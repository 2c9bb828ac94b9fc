"""Every refusal in one form, and every answer counted."""

import asyncio
import logging
from typing import Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from stepstream_ingest import telemetry
from stepstream_ingest.artifacts.stores.store import ObjectGone, StoreAway, StoreRefused
from stepstream_ingest.errors import ApiError, DatabaseAway, NotStorable

LOGGER: Final = logging.getLogger(__name__)
RETRY_AWAY_S: Final = 2
CLIENT_GONE: Final = 499
"""What nginx calls it; seen by nobody but who counts."""


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers what is raised; a defect is logged and says so."""
    response = await _answered(request, handler)
    telemetry.count_answer(response.status)
    return response


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _refusal(error)
    except DatabaseAway as error:
        return _refusal(ApiError(503, "DATABASE_AWAY", str(error), RETRY_AWAY_S))
    except NotStorable as error:
        return _refusal(ApiError(400, "INVALID_PARAMETER_VALUE", f"PostgreSQL does not take a value of this: {error}"))
    except StoreAway as error:
        return _refusal(ApiError(503, "STORE_AWAY", str(error), RETRY_AWAY_S))
    except ObjectGone as error:
        return _refusal(ApiError(404, "RESOURCE_DOES_NOT_EXIST", str(error)))
    except StoreRefused as error:
        return _refusal(ApiError(400, "INVALID_PARAMETER_VALUE", str(error)))
    except web.HTTPRequestEntityTooLarge as error:
        return _refusal(ApiError(413, "TOO_LARGE", str(error.text)))
    except web.HTTPException as error:
        codes = {404: "ENDPOINT_NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}
        message = f"{request.method} {request.path}: {error.reason}"
        return _refusal(ApiError(error.status, codes.get(error.status, "HTTP_ERROR"), message))
    except asyncio.CancelledError:
        raise
    except ConnectionError as error:
        if request.transport is None or request.transport.is_closing():
            # Whoever asked went away in the middle. Raised on, it would be a traceback of aiohttp's for each.
            LOGGER.debug("%s %s: its sender went away: %s", request.method, request.path, error)
            return _refusal(ApiError(CLIENT_GONE, "CLIENT_GONE", "the connection was closed before the answer"))
        return _defect(request)
    except Exception:  # noqa: BLE001 - the last place where it can be told
        return _defect(request)


def _defect(request: web.Request) -> web.Response:
    LOGGER.exception("%s %s failed", request.method, request.path)
    return _refusal(ApiError(500, "INTERNAL_ERROR", "a defect of the server; its log has the details"))


def _refusal(error: ApiError) -> web.Response:
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="stepstream", Bearer'
    body = orjson.dumps({"error_code": error.code, "message": error.message})
    return web.Response(status=error.status, body=body, content_type="application/json", headers=headers)
