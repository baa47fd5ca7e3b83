"""What callers of a gateway in memory are answered with: the real route table decides."""

from gateway.contract.references import parse_selector
from gateway.errors import GatewayError
from gateway.routing.route_table import RouteTable
from tests.fakes.gateway import FakeGateway

WAITS = "waits"


def table_of(gateway: FakeGateway) -> RouteTable:
    """The route table of a gateway as it is now."""
    return RouteTable("champion", catalogue=gateway.catalogue, active=gateway.active)


def answer(gateway: FakeGateway, model: str, selector: str) -> str:
    """The digest whose worker answers a caller; `WAITS`; or the code of the refusal."""
    try:
        route = table_of(gateway).resolve(model, parse_selector(selector))
    except GatewayError as refused:
        return refused.code
    return route.digest or WAITS
